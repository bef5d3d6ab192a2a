"""Families of invertible maps, of which operators are made, and lists of them.

Imports `trust`, `kernels` and `arrays`; a family knows no operator.
"""
