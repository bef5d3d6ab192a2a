"""Fuzzing by Hypothesis: damaged files, random calls, and an operator's life.

The parameter files that damage starts from are in `corpus/`.
"""
