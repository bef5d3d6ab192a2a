"""Density models: data, recipes, training, checkpoints, samples.

Imports invconv_benchmarks.density, PyTorch and JAX.
"""
