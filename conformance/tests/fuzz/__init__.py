"""Fuzzing by Hypothesis: damaged files, random calls, and an operator's life."""
