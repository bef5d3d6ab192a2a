"""Worker processes that measure, and the schedule of their passes.

May import `measure`, `suites`, `contenders` and `results`.
"""
