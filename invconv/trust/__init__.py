"""Errors of inverses: norms, condition numbers, bounds and measurements of maps.

Imports `invconv.kernels` and lower rooms, and knows no class of operators.
"""
