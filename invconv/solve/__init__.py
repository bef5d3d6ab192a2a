"""Factor once, solve often: the state of a factored map, and the precision of its solves.

Imports `invconv.kernels` and lower rooms.
"""
