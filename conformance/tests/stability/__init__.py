"""When an inverse cannot be right, and what is promised of those that can.

Imports invconv, the suite's oracle and, for the guard and the bounds, PyTorch and JAX.
"""
