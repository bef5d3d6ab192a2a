"""How many digits an inverse is good for: condition numbers, in NumPy float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, onenormest

from invconv.arrays import Shape, size
from invconv.errors import SingularConvError

if TYPE_CHECKING:
    from invconv.base import InvertibleConv

Matrix = np.ndarray[Any, np.dtype[np.float64]]

TOLERATED = 1e-2  # condition x eps beyond which fewer than two digits are right
_EXACT_UNKNOWNS = 512  # up to here all columns of the inverse are formed


class _Overflow(ArithmeticError):
    """A solve overflowed."""


def guarded(compute: Callable[[Shape], float], shape: Shape) -> float:
    """Return ``compute(shape)``, and inf where the operator is singular or something overflows."""
    try:
        with np.errstate(all="ignore"):
            number = compute(shape)
    except (SingularConvError, _Overflow, np.linalg.LinAlgError):
        return math.inf
    return math.inf if math.isnan(number) else number


def of_matrices(matrices: Matrix) -> float:
    """Return the largest over the smallest singular value of a block-diagonal matrix.

    Parameters
    ----------
    matrices : array, shape (..., C, C)
        The blocks.
    """
    if not np.isfinite(matrices).all():
        return math.inf
    values = np.linalg.svd(matrices, compute_uv=False)
    smallest = float(values.min())
    return float(values.max()) / smallest if smallest else math.inf


def neumann_bound(diagonal: Matrix, taps: Matrix) -> float:
    """Bound the 2-norm condition number of a convolution at every grid size, or return inf.

    K = D (I + D^-1 R), where R has the taps other than D. Each tap is a shift times a matrix, so
    |R| <= sum |taps|; if rho = |D^-1| sum |taps| < 1 then |K^-1| <= |D^-1| / (1 - rho).

    Parameters
    ----------
    diagonal : array, shape (C, C)
        D.
    taps : array, shape (T, C, C)
        The other taps.
    """
    inverse_norm = float(np.linalg.norm(np.linalg.inv(diagonal), 2))
    rest = float(np.linalg.norm(taps, 2, axis=(1, 2)).sum())
    rho = inverse_norm * rest
    if not rho < 1:
        return math.inf
    return inverse_norm / (1 - rho) * (float(np.linalg.norm(diagonal, 2)) + rest)


def one_norm(conv: InvertibleConv, shape: Shape) -> float:
    """Return |K|_1 |K^-1|_1, exactly on a small grid and by Hager and Higham's estimate beyond.

    The estimate is from below; on random kernels it is rarely under half of the truth.

    References
    ----------
    N. J. Higham, F. Tisseur, A block algorithm for matrix 1-norm estimation, SIAM J. Matrix Anal.
    Appl. 21 (2000); with one column, so that it draws no random numbers, and Higham's alternating
    vector beside it.
    """
    apply, solve = conv._linear_maps(shape)
    apply_t, solve_t = conv.transpose()._linear_maps(shape)
    sample = (conv.channels, *shape)
    return _norm(apply, apply_t, sample) * _norm(solve, solve_t, sample)


def _norm(
    matvec: Callable[[Matrix], Matrix], rmatvec: Callable[[Matrix], Matrix], sample: Shape
) -> float:
    """Return or estimate the 1-norm of a linear map on arrays (B, *sample)."""
    n = size(sample)

    def on_columns(function: Callable[[Matrix], Matrix]) -> Callable[[Matrix], Matrix]:
        def columns(vectors: Matrix) -> Matrix:
            batch = np.ascontiguousarray(vectors.reshape(n, -1).T).reshape(-1, *sample)
            result = function(batch).reshape(-1, n).T
            if not np.isfinite(result).all():
                raise _Overflow
            return result.reshape(vectors.shape)

        return columns

    forth, back = on_columns(matvec), on_columns(rmatvec)
    if n <= _EXACT_UNKNOWNS:
        return float(np.abs(forth(np.eye(n))).sum(axis=0).max())
    operator = LinearOperator(
        (n, n), matvec=forth, rmatvec=back, matmat=forth, rmatmat=back, dtype=np.float64
    )
    alternating = (-1.0) ** np.arange(n) * (1 + np.arange(n) / (n - 1))
    lower = 2 * float(np.abs(forth(alternating)).sum()) / (3 * n)
    return max(lower, float(onenormest(operator, t=1)))


def describe_loss(
    conv: InvertibleConv, shape: Shape, number: float, precision: str, eps: float
) -> str:
    """Say what is lost, for the warning."""
    grid = " x ".join(map(str, shape)) or "1"
    digits = max(0.0, -math.log10(number * eps)) if math.isfinite(number) else 0.0
    return (
        f"the inverse of {type(conv).__name__} on a {grid} grid has condition number {number:.3g} "
        f"(in float64; at least, where it is an estimate): {digits:.0f} digits are left in "
        f"{precision} (eps {eps:.1e}), though K x - y and the log-determinant look fine; keep the "
        f"taps small against the diagonal, use float64, or pass check=False to prepare"
    )
