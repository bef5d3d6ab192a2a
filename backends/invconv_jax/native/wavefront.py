"""The primitive `causal_solver`: causal solves on a grid.

The derivative is JAX's rule for a linear solve (`lax.custom_linear_solve`), which keeps only the
solution. A compiled kernel solves on a CPU and on CUDA devices, a loop over wavefronts elsewhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax

from invconv.arrays.namespaces import Array, Shape, readable
from invconv.kernels.cpu.compiled import available
from invconv.kernels.wavefront import CausalStencil
from invconv_jax.native import kernel
from invconv_jax.native.products import correlate
from invconv_jax.native.scan import Geometry


def causal_solver(stencil: CausalStencil, shape: Shape) -> CausalSolver:
    """See `invconv.kernels.wavefront.causal_solver`."""
    return CausalSolver(stencil.within(shape), shape)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["causal"], meta_fields=["shape"])
@dataclass(frozen=True, eq=False)
class CausalSolver:
    """The map y -> x, both (B, C, *shape), that solves ``causal.stencil()`` x = y."""

    causal: CausalStencil
    shape: Shape

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        geometry, diagonal = Geometry.of(self.causal, self.shape), self.causal.diagonal
        corner = {"at the pixel": "cached inverse where accurate, else triangular solve"}
        if not available(diagonal.dtype.itemsize):
            return {"method": "wavefront", "levels": geometry.levels} | corner
        if isinstance(diagonal, jax.core.Tracer):
            kinds = "compiled kernel on a CPU, kernel or wavefront on CUDA, wavefront elsewhere"
            return {"method": kinds} | corner
        if readable(diagonal):
            return {"method": "compiled kernel"} | corner
        on_cuda = kernel.program_of(geometry, diagonal.shape[0], diagonal.dtype) is not None
        return {"method": "CUDA kernel" if on_cuda else "wavefront"} | corner

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        return _solve(self.causal, y)


@jax.jit  # type: ignore[untyped-decorator]
def _solve(causal: CausalStencil, y: Array) -> Array:
    """Return x, with the derivatives of a linear solve."""
    geometry, matrices = Geometry.of(causal, y.shape[2:]), causal.stencil().taps
    return lax.custom_linear_solve(
        lambda x: correlate(causal.stencil(), x),
        y,
        lambda _, b: kernel.solve(geometry, matrices, b),
        lambda _, b: kernel.solve(geometry.transpose(), matrices.mT, b),
    )
