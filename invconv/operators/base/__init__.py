"""What every operator has: parameters, calls, the protocol of a class, and what follows from it.

Imports `invconv.trust` and what is below it, and no class of operators.
"""
