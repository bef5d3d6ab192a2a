"""The base of every operator: parameters, calls, the protocol of a class, and public methods.

Imports `invconv.trust` and lower rooms, and no class of operators.
"""
