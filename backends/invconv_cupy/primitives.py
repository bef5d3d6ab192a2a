"""CuPy: how the library runs the primitives of the core, the plain wavefront among them.

`invconv.arrays.registry` finds this module by its entry point; nothing imports it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import cupy
from cupy.lib.stride_tricks import as_strided

from invconv.kernels.plain.pitched import PitchedSolver, StridedOps
from invconv.kernels.wavefront import CausalStencil, inverse_at_the_pixel
from invconv_cupy.precision import full_precision

Array: TypeAlias = Any


def matmul(a: Array, b: Array) -> Array:
    """See `invconv.kernels.primitives.matmul`."""
    with full_precision():
        return cupy.matmul(a, b)


def triangular_solve(matrix: Array, rhs: Array, *, lower: bool) -> Array:
    """See `invconv.kernels.primitives.triangular_solve`."""
    # here, since it loads cuBLAS, which is missing where there is no GPU
    from cupyx.scipy.linalg import solve_triangular

    return solve_triangular(matrix, rhs, lower=lower)


def _strided_view(x: Array, shape: tuple[int, ...], strides: tuple[int, ...], start: int) -> Array:
    flat = x.reshape(-1)[start:]  # a view, since x is contiguous
    return as_strided(flat, shape, tuple(s * x.itemsize for s in strides))


def _matmul_into(a: Array, b: Array, out: Array) -> Array:
    return cupy.matmul(a, b, out=out)  # which it takes by name only


def _exact(x: Array) -> AbstractContextManager[None]:
    return full_precision()


CUPY = StridedOps(_strided_view, _matmul_into, _exact)


def causal_solver(stencil: CausalStencil, shape: tuple[int, ...]) -> PitchedSolver:
    """See `invconv.kernels.wavefront.causal_solver`."""
    return PitchedSolver(stencil, inverse_at_the_pixel(stencil), shape, CUPY)
