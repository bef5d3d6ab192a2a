"""Clocks, memory, threads and processes; statistics of samples; a description of the machine.

May import `invconv_conformance` and nothing else of ours but the core.
"""
