"""Compiled products with a matrix a frequency, transforms included; and LU factors.

May import `invconv.kernels.cpu` and its compiler; callers pass the matrices of the transforms.
"""
