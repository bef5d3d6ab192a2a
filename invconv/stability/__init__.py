"""Whether an inverse can be trusted, and what to do: diagnose, bounded, the guard.

Imports `invconv.operators` and lower rooms.
"""
