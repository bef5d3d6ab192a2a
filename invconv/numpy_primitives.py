"""NumPy's native primitives: products into strided views and of windows, and BLAS's trsm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import get_blas_funcs

from invconv import blas, strided, windows
from invconv.arrays import Shape
from invconv.stencil import Offset, Stencil
from invconv.tiles import Costs
from invconv.wavefront import CausalStencil, stable_inverse

Floats = np.ndarray[Any, Any]

COSTS = Costs(call=1e-6, adds=True)
_WINDOW_BYTES = 2**21  # they stay in the cache


def correlate(stencil: Stencil, x: Floats, *, wrap: bool = False) -> Floats:
    """See `invconv.primitives.correlate`."""
    y: Floats = windows.correlate(
        stencil, x, wrap=wrap, window_bytes=_WINDOW_BYTES, memory=windows.kept
    )
    return y


def correlate_kernel_vjp(
    x: Floats, y_bar: Floats, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Floats:
    """See `invconv.primitives.correlate_kernel_vjp`."""
    taps_bar: Floats = windows.correlate_kernel_vjp(
        x, y_bar, offsets, wrap=wrap, window_bytes=_WINDOW_BYTES, memory=windows.kept
    )
    return taps_bar


def triangular_solve(matrix: Floats, rhs: Floats, *, lower: bool) -> Floats:
    """See `invconv.primitives.triangular_solve`."""
    trsm = get_blas_funcs("trsm", (matrix, rhs))
    # X^T T^T = B^T, since the transpose of a row-major B is what BLAS takes without a copy
    x: Floats = trsm(1.0, matrix, rhs.T, side=1, lower=lower, trans_a=1).T
    return x


def _as_strided(x: Floats, shape: tuple[int, ...], strides: tuple[int, ...]) -> Floats:
    """Return a view, which NumPy refuses where it would leave the array (and `as_strided` not)."""
    return np.ndarray(shape, x.dtype, x, strides=strides)


STRIDED = strided.Strided(np, _as_strided, blas.product, np.matmul, keeps=True)


@dataclass(frozen=True, eq=False)
class Solver(strided.StridedSolver):
    """The waves on NumPy."""

    library: ClassVar[strided.Strided] = STRIDED

    @property
    def costs(self) -> Costs:
        """What products cost here."""
        return COSTS


def causal_solver(stencil: CausalStencil, shape: Shape) -> Solver:
    """See `invconv.wavefront.causal_solver`."""
    return Solver(stencil, stable_inverse(stencil.diagonal), shape)
