"""How solves and correlations run: compiled, plain, in threads, and where llvmlite is absent.

Imports invconv.kernels and, to trace and to compare, PyTorch.
"""
