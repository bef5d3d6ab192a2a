"""PyTorch: layers, derivatives, compiled and distributed programs, reversible chains.

Imports invconv, invconv_torch and PyTorch.
"""
