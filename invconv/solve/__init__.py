"""Factor once, solve often: the state of a factored map, and the precision it is solved in.

Imports `invconv.kernels` and what is below it.
"""
