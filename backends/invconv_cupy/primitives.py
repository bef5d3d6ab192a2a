"""CuPy: how the library runs the primitives of the core (found through `invconv.registry`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import cupy
from cupy.lib.stride_tricks import as_strided

from invconv import strided, windows
from invconv.stencil import Offset, Stencil
from invconv.wavefront import CausalStencil, inverse_at_the_pixel
from invconv_cupy.precision import full_precision

Array: TypeAlias = Any

_WINDOW_BYTES = 2**28  # enough to fill a GPU, and a small part of its memory


def matmul(a: Array, b: Array) -> Array:
    """See `invconv.primitives.matmul`."""
    with full_precision():
        return cupy.matmul(a, b)


def correlate(stencil: Stencil, x: Array, *, wrap: bool = False) -> Array:
    """See `invconv.primitives.correlate`."""
    with full_precision():
        return windows.correlate(stencil, x, wrap=wrap, window_bytes=_WINDOW_BYTES)


def correlate_kernel_vjp(
    x: Array, y_bar: Array, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Array:
    """See `invconv.primitives.correlate_kernel_vjp`."""
    with full_precision():
        return windows.correlate_kernel_vjp(
            x, y_bar, offsets, wrap=wrap, window_bytes=_WINDOW_BYTES
        )


def triangular_solve(matrix: Array, rhs: Array, *, lower: bool) -> Array:
    """See `invconv.primitives.triangular_solve`."""
    # here, since it loads cuBLAS, which is missing where there is no GPU
    from cupyx.scipy.linalg import solve_triangular

    return solve_triangular(matrix, rhs, lower=lower)


def _matmul_into(a: Array, b: Array, out: Array) -> Array:
    return cupy.matmul(a, b, out=out)  # which it takes by name only


STRIDED = strided.Strided(
    cupy, as_strided, strided.general_product(cupy), _matmul_into, keeps=False
)


@dataclass(frozen=True, eq=False)
class Solver(strided.StridedSolver):
    """The waves on CuPy."""

    library: ClassVar[strided.Strided] = STRIDED

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        with full_precision():
            return super().__call__(y)


def causal_solver(stencil: CausalStencil, shape: tuple[int, ...]) -> Solver:
    """See `invconv.wavefront.causal_solver`."""
    return Solver(stencil, inverse_at_the_pixel(stencil), shape)
