"""Questions that no suite asks: ``python -m invconv_benchmarks.studies.NAME`` answers one.

May import every room but `demo` and `density`, and the adapters.
"""
