"""Clocks, processes, statistics, the machine. May import `invconv_conformance` and the core."""
