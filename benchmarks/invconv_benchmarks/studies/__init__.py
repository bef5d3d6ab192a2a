"""Suites that time nothing in turns: each has ``measure(quick, folder)``, which judges by limits.

May import every room but `demo` and `density`, and the adapters.
"""
