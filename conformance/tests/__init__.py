"""Tests that only developers need, one folder per subject; the suite for users is shipped apart.

Tests import the packages, and helpers from a neighbouring folder as `tests.<folder>.<module>`.
"""
