"""Suites that judge: ``measure(quick, folder)``. May import `density`, `demo` and rooms below."""
