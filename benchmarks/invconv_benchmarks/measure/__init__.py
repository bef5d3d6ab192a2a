"""Clocks, memory, threads and processes; statistics of samples; what the machine is.

May import `invconv_conformance` and nothing else of ours but the core.
"""
