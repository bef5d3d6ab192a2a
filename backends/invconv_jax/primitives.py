"""JAX's native primitives, which `invconv.arrays.registry` looks up here."""

from invconv_jax.array_ops import JaxOps
from invconv_jax.native.convolve import correlate as correlate
from invconv_jax.native.convolve import correlate_kernel_vjp as correlate_kernel_vjp
from invconv_jax.native.exponential import counted as counted
from invconv_jax.native.exponential import exponential as exponential
from invconv_jax.native.exponential import exponential_gram as exponential_gram
from invconv_jax.native.partition import spread as spread
from invconv_jax.native.solves import matmul as matmul
from invconv_jax.native.solves import triangular_solve as triangular_solve
from invconv_jax.native.spectrum import spectral_solver as spectral_solver
from invconv_jax.native.wavefront import causal_solver as causal_solver

ARRAY_OPS = JaxOps
