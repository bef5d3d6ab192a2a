"""Benchmarks: what is measured, how results are read, and what is said of them."""
