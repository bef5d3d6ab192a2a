"""JAX: primitives, derivatives, pytrees, sharded and lowered programs, training.

Imports invconv, invconv_jax and JAX.
"""
