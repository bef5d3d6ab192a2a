"""Correlations and their gradients by the taps as compiled functions.

May import `invconv.kernels` and `invconv.kernels.cpu.compiler`, and stencils.
"""
