"""Suites that judge: ``measure(quick, folder)``. May import all rooms but `demo` and `density`."""
