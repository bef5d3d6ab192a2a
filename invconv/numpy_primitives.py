"""NumPy's native primitives: products into strided views and of windows, and BLAS's trsm.

No product says "invalid value encountered in matmul": on AVX-512, OpenBLAS's sgemv (0.3.31) reads
memory for a matrix of five columns that nothing was written to. The result is right, but depending
on what was there NumPy warns.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from invconv import blas, strided, windows
from invconv.arrays import Shape
from invconv.replay import loops
from invconv.stencil import Offset, Stencil
from invconv.tiles import Costs
from invconv.wavefront import CausalStencil, stable_inverse
from invconv.workspaces import Workspaces

Floats = np.ndarray[Any, Any]

COSTS = Costs(call=1.5e-7, adds=True)
ONE_BY_ONE = Costs(call=6e-7, adds=True)  # without `invconv.replay.loops`
_WINDOW_BYTES = 2**21  # they stay in the cache
# numbers from which trsm shares B out among threads, which get in others' way, see `invconv.blas`;
# a solve with a larger B is done in pieces, unless they are too many for what it takes
_SHARED_OUT = 1024
_PIECES = 16

_ROOMS: Workspaces[Floats] = Workspaces()

_quiet = np.errstate(invalid="ignore")


@_quiet
def matmul(a: Floats, b: Floats) -> Floats:
    """See `invconv.primitives.matmul`."""
    product: Floats = np.matmul(a, b)
    return product


@_quiet
def correlate(stencil: Stencil, x: Floats, *, wrap: bool = False) -> Floats:
    """See `invconv.primitives.correlate`."""
    y: Floats = windows.correlate(stencil, x, wrap=wrap, window_bytes=_WINDOW_BYTES, rooms=_ROOMS)
    return y


@_quiet
def correlate_kernel_vjp(
    x: Floats, y_bar: Floats, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Floats:
    """See `invconv.primitives.correlate_kernel_vjp`."""
    taps_bar: Floats = windows.correlate_kernel_vjp(
        x, y_bar, offsets, wrap=wrap, window_bytes=_WINDOW_BYTES, rooms=_ROOMS
    )
    return taps_bar


def triangular_solve(matrix: Floats, rhs: Floats, *, lower: bool) -> Floats:
    """See `invconv.primitives.triangular_solve`."""
    trsm = get_blas_funcs("trsm", (matrix, rhs))

    def solve(part: Floats) -> Floats:
        # X^T T^T = B^T, since the transpose of a row-major B is what BLAS takes without a copy
        x: Floats = trsm(1.0, matrix, part.T, side=1, lower=lower, trans_a=1).T
        return x

    step = max(1, (_SHARED_OUT - 1) // max(1, len(matrix)))
    starts = range(0, rhs.shape[1], step)
    if not 1 < len(starts) <= _PIECES:
        return solve(rhs)
    return np.concatenate([solve(rhs[:, i : i + step]) for i in starts], axis=1)


def _as_strided(x: Floats, shape: tuple[int, ...], strides: tuple[int, ...]) -> Floats:
    """Return a view, which NumPy refuses where it would leave the array (and `as_strided` not)."""
    return np.ndarray(shape, x.dtype, x, strides=strides)


STRIDED = strided.Strided(np, _as_strided, blas.product, np.matmul, keeps=True)


@dataclass(frozen=True, eq=False)
class Solver(strided.StridedSolver):
    """The waves on NumPy."""

    library: ClassVar[strided.Strided] = STRIDED

    @_quiet
    def __call__(self, y: Floats) -> Floats:
        """Solve for x, shape (B, C, *shape)."""
        x: Floats = super().__call__(y)
        return x

    @property
    def costs(self) -> Costs:
        """What products cost here."""
        return costs()


def costs() -> Costs:
    """Return what products cost: in one call with others, or each by itself."""
    return ONE_BY_ONE if loops() is None else COSTS


def causal_solver(stencil: CausalStencil, shape: Shape) -> Solver:
    """See `invconv.wavefront.causal_solver`."""
    inverse = stable_inverse(stencil.diagonal, functools.partial(_invert, lower=stencil.lower))
    return Solver(stencil, inverse, shape)


def _invert(matrix: Floats, *, lower: bool) -> Floats:
    """Return the inverse of a regular triangular matrix."""
    trtri: Any = get_lapack_funcs("trtri", (matrix,))
    inverse: Floats = trtri(matrix.T, lower=not lower)[0].T
    return inverse
