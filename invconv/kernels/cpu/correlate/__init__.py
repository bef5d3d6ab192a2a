"""Correlations and their gradients by the taps as compiled functions: forwards that need no solve.

May import `invconv.kernels` and `invconv.kernels.cpu.compiler`, and stencils.
"""
