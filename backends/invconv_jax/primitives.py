"""JAX's native primitives, which `invconv.arrays.registry` looks up here."""

from invconv_jax.array_ops import JaxOps
from invconv_jax.native.convolve import correlate, correlate_kernel_vjp
from invconv_jax.native.exponential import (
    counted,
    exponential,
    exponential_gram,
)
from invconv_jax.native.partition import spread
from invconv_jax.native.solves import matmul, triangular_solve
from invconv_jax.native.spectrum import spectral_solver
from invconv_jax.native.wavefront import causal_solver

__all__ = [
    "ARRAY_OPS",
    "causal_solver",
    "correlate",
    "correlate_kernel_vjp",
    "counted",
    "exponential",
    "exponential_gram",
    "matmul",
    "spectral_solver",
    "spread",
    "triangular_solve",
]

ARRAY_OPS = JaxOps
