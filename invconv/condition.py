"""How many digits an inverse is good for: condition numbers, in NumPy float64."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from invconv.arrays import Shape, size, to_numpy
from invconv.errors import SingularConvError

if TYPE_CHECKING:
    from invconv.base import InvertibleConv

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Map = Callable[[Matrix], Matrix]

TOLERATED = 1e-2  # condition x eps beyond which fewer than two digits are right
_EXACT_UNKNOWNS = 512  # up to here all columns of the inverse are formed
_RANDOM_STARTS, _CLIMBS = 1, 4


class _Overflow(ArithmeticError):
    """A solve overflowed."""


def number(conv: InvertibleConv, shape: Shape) -> float:
    """Return the condition number of any operator, from its values in host memory."""

    def compute(host: InvertibleConv) -> float:
        host._linear_maps(shape)  # raises where the operator is exactly singular
        return host._condition(shape)

    return _guarded(compute, conv)


def bound(conv: InvertibleConv, shape: Shape) -> float:
    """Return a cheap upper bound of the 2-norm condition number of any operator, or inf."""
    return _guarded(lambda host: host._condition_bound(shape), conv)


def _guarded(compute: Callable[[InvertibleConv], float], conv: InvertibleConv) -> float:
    """Compute on the host in float64; inf where the operator is singular or a solve overflows."""
    host = conv.asarrays(np.empty(0))
    try:
        with np.errstate(all="ignore"):
            value = compute(host)
    except (SingularConvError, _Overflow, np.linalg.LinAlgError):
        return math.inf
    return math.inf if math.isnan(value) else value


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
    """Return |K|_1 |K^-1|_1, exactly on a small grid and by an estimate from below beyond."""
    apply, solve = conv._linear_maps(shape)
    apply_t, solve_t = conv.transpose()._linear_maps(shape)
    sample = (conv.channels, *shape)
    return map_norm(apply, apply_t, sample) * map_norm(solve, solve_t, sample)


def map_norm(apply: Map, apply_t: Map, sample: Shape) -> float:
    """Return or estimate the 1-norm of a linear map on arrays (B, *sample) and its transpose.

    The estimate is Hager's and Higham's: it climbs from several vectors at once to a column of
    the matrix with a large sum. The vectors are those of LAPACK's xLACON and a few random signs,
    always the same ones.

    References
    ----------
    N. J. Higham, FORTRAN codes for estimating the one-norm of a real or complex matrix, ACM Trans.
    Math. Softw. 14 (1988).
    """
    n = size(sample)

    def on_rows(function: Map, rows: Matrix) -> Matrix:
        result: Matrix = function(rows.reshape(-1, *sample)).reshape(-1, n)
        if not np.isfinite(result).all():
            raise _Overflow
        return result

    if n <= _EXACT_UNKNOWNS:
        return float(np.abs(on_rows(apply, np.eye(n))).sum(axis=1).max())
    alternating = (-1.0) ** np.arange(n) * (1 + np.arange(n) / (n - 1))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_RANDOM_STARTS, n))
    x = np.vstack([np.ones(n), alternating, signs])
    x /= np.abs(x).sum(axis=1, keepdims=True)
    best = 0.0
    for _ in range(_CLIMBS):
        y = on_rows(apply, x)
        sums = np.abs(y).sum(axis=1)
        best = max(best, float(sums.max()))
        slope = on_rows(apply_t, np.where(y < 0, -1.0, 1.0))
        steepest = np.unique(np.abs(slope).argmax(axis=1))
        if np.abs(slope).max() <= best * (1 + 1e-12):
            break
        x = np.zeros((len(steepest), n))
        x[np.arange(len(steepest)), steepest] = 1.0
    return best


def callers_level() -> int:
    """Return the ``stacklevel`` at which a warning points to the line that called the library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _ours(str(frame.f_globals.get("__name__"))):
        level, frame = level + 1, frame.f_back
    return level


def _ours(module: str) -> bool:
    return module.partition(".")[0] in ("invconv", "invconv_torch", "invconv_jax", "invconv_cupy")


def describe_loss(
    conv: InvertibleConv, shape: Shape, number: float, precision: str, eps: float
) -> str:
    """Say what is lost and what to do, for the warning."""
    grid = " x ".join(map(str, shape)) or "1"
    name = f"the inverse of {type(conv).__name__} on a {grid} grid"
    broken = [n for n, a in conv.parameters().items() if not np.isfinite(to_numpy(a)).all()]
    if broken:
        return f"{name} has condition number inf: {', '.join(broken)} holds NaN or inf"
    digits = max(0.0, -math.log10(number * eps)) if math.isfinite(number) else 0.0
    advice = "bring the parameters closer to their initialisation"
    if eps > 1e-10 and number * 2.0**-52 <= TOLERATED:
        advice += ", or use float64"
    return (
        f"{name} has condition number {number:.3g}: {digits:.0f} digits are left in {precision} "
        f"(eps {eps:.1e}), though K x - y and the log-determinant look fine; {advice} "
        f"(conv.condition says how the number is found; prepare(..., check=False) does not look)"
    )
