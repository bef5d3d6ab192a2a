"""JAX: how the library runs the primitives of the core (found through `invconv.registry`)."""

from invconv_jax.convolve import correlate, correlate_kernel_vjp
from invconv_jax.wavefront import causal_solver, triangular_solve

__all__ = ["causal_solver", "correlate", "correlate_kernel_vjp", "triangular_solve"]
