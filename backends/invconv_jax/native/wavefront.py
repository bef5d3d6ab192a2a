"""The primitive `causal_solver`: causal solves, factored for a grid.

The derivative is JAX's rule for a linear solve (`lax.custom_linear_solve`), which keeps only the
solution. A compiled kernel solves on a CPU and on CUDA devices, a loop over wavefronts elsewhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax

from invconv.arrays.namespaces import Array, Shape, readable
from invconv.kernels.cpu.compiled import available, compiled_solve
from invconv.kernels.wavefront import CausalStencil
from invconv_jax.native.convolve import correlate
from invconv_jax.native.kernel import Kernel
from invconv_jax.native.scan import Geometry, Scan


def causal_solver(stencil: CausalStencil, shape: Shape) -> CausalSolver:
    """See `invconv.kernels.wavefront.causal_solver`."""
    c = stencil.within(shape)
    geometry, matrices = Geometry.of(c, shape), c.stencil().taps
    if available(matrices.dtype.itemsize):
        if isinstance(matrices, jax.core.Tracer):
            return CausalSolver(c, shape, matrices, Kernel(), _PLAN + _CORNER)
        if readable(matrices):
            settings = shape, c.reach, c.direction, c.dilation, c.lower
            factored = compiled_solve(np.asarray(matrices), *settings)
            kernel = Kernel.of(factored, matrices)
            return CausalSolver(c, shape, matrices, kernel, tuple(factored.plan.items()))
        if on_cuda := Kernel.on_cuda(geometry, matrices):
            return CausalSolver(c, shape, matrices, on_cuda, _CUDA_PLAN + _CORNER)
    scan = Scan.of(c.diagonal, c.lower)
    return CausalSolver(c, shape, matrices, scan, tuple(scan.plan(geometry).items()))


_PLAN = (("method", "compiled kernel on a CPU, kernel or wavefront on CUDA, wavefront elsewhere"),)
_CUDA_PLAN = (("method", "CUDA kernel"),)
_CORNER = (("at the pixel", "cached inverse where accurate, else triangular solve"),)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["causal", "matrices", "way"],
    meta_fields=["shape", "entries"],
)
@dataclass(frozen=True, eq=False)
class CausalSolver:
    """The map y -> x, both (B, C, *shape), that solves ``causal.stencil()`` x = y.

    Attributes
    ----------
    causal : CausalStencil
    shape : tuple of int
        The grid.
    matrices : array, shape (1 + T, C, C)
        D and the taps.
    way : Kernel or Scan
    entries : tuple of pairs
        The items of the plan; no dict, since jit must hash fields that are no arrays.
    """

    causal: CausalStencil
    shape: Shape
    matrices: Array
    way: Kernel | Scan
    entries: tuple[tuple[str, Any], ...]

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return dict(self.entries)

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        return _solve(Geometry.of(self.causal, self.shape), self.way, self.matrices, y)

    def __reduce__(self) -> Any:
        """Pickle without the factors, since their layout depends on the processor."""
        return causal_solver, (self.causal, self.shape)


@functools.partial(jax.jit, static_argnums=0)
def _solve(geometry: Geometry, way: Kernel | Scan, matrices: Array, y: Array) -> Array:
    """Return x, with the derivatives of a linear solve."""
    g = geometry
    causal = CausalStencil(
        matrices[0], g.lower, matrices[1:], g.reach, g.direction, g.dilation, g.slope
    )
    return lax.custom_linear_solve(
        lambda x: correlate(causal.stencil(), x),
        y,
        lambda _, b: way.solve(g, matrices, b),
        lambda _, b: way.transpose().solve(g.transpose(), matrices.mT, b),
    )
