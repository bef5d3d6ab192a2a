"""Products with a matrix a frequency as a compiled function: transforms, products, and back.

May import `invconv.kernels.cpu` and its compiler; what the transforms are it is told.
"""
