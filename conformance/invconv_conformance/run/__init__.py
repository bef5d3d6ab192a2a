"""Running the laws: what to run, worker processes, results, and failures that are expected.

Imports `laws` and what is below it.
"""
