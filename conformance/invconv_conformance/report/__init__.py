"""What a run found, as terminal tables, JSON and JUnit, and how far libraries agree.

Imports `run` and what is below it.
"""
