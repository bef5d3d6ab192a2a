"""Flows of images: their parts, their files, the same in PyTorch and JAX."""
