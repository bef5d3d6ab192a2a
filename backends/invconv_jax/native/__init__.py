"""How JAX runs the primitives: convolutions, solves, transforms, and their split over devices.

Imports `invconv.kernels` and what is below it.
"""
