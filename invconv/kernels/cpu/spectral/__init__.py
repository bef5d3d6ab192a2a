"""What is compiled for a matrix a frequency: products, with the transforms; and LU factors.

May import `invconv.kernels.cpu` and its compiler; what the transforms are it is told.
"""
