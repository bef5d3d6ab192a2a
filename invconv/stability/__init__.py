"""Tests and remedies for inverses that cannot be trusted: diagnose, bounded, the guard.

Imports `invconv.operators` and lower rooms.
"""
