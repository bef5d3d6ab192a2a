"""Results of a run: rows, ratios, verdicts on limits, and the file that keeps them.

May import `measure`, `suites` and `contenders`.
"""
