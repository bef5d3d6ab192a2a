"""Condition numbers |K| |K^-1| in NumPy float64: 2-norm of matrices, 1-norm of other maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Shape
from invconv.trust.norms import Maps, Matrix, SolveOverflowError, norms

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
UNRESOLVED = 0.1  # trust the smallest singular value only if rounding is below this part of it

OVERFLOW = "the inverse, or its condition number, is beyond the range of float64 (1.8e308)"


FAILURES = (
    SingularConvError,
    SolveOverflowError,
    np.linalg.LinAlgError,
)  # no finite condition number


@dataclass(frozen=True)
class Condition:
    """A condition number |K| |K^-1|, and the channel and pixel, or frequency, that cause it.

    Attributes
    ----------
    value : float
        inf if K is singular or its inverse overflows.
    norm : {"1-norm", "2-norm"}
    exact : bool
        True if ``value`` is the number itself, False if it is an estimate from below.
    resolved : bool
        False if rounding alone may account for the smallest singular value: then ``value`` tells
        only that no digit of a float64 inverse is certain.
    channel, pixel : int, tuple of int, or None
        The largest column of K^-1: an error in y there harms x = K^-1 y most.
    frequency : tuple of numbers, or None
        The worst frequency of a periodic or symmetric convolution, in periods along each axis of
        the grid.
    trouble : str
        Why ``value`` is inf.
    """

    value: float
    norm: str
    exact: bool = True
    resolved: bool = True
    channel: int | None = None
    pixel: Shape | None = None
    frequency: tuple[float, ...] | None = None
    trouble: str = ""


def digits_left(number: float, eps: float) -> float:
    """Return -log10(number x eps), the decimal digits that a condition number leaves, at least 0.

    Parameters
    ----------
    number : float
    eps : float
        The eps of the precision: 2^-23 leaves 6.9 digits if nothing is lost, 2^-52 leaves 15.7.
    """
    return max(0.0, -math.log10(max(1.0, number) * eps)) if math.isfinite(number) else 0.0


def of_spectrum(matrices: Matrix, rounding: float) -> Condition:
    """Return the largest over the smallest singular value of a block-diagonal matrix.

    Parameters
    ----------
    matrices : array, shape (F, C, C)
        The blocks, one a frequency.
    rounding : float
        The error of a singular value by rounding, at most.

    Returns
    -------
    Condition
        With ``frequency`` (f,), the index of the worst block.
    """
    if not np.isfinite(matrices).all():
        raise SolveOverflowError
    one = matrices.shape[-1] == 1
    values = np.abs(matrices[..., 0]) if one else np.linalg.svd(matrices, compute_uv=False)
    smallest = float(values.min())
    value = float(values.max()) / smallest if smallest else math.inf
    resolved = rounding < UNRESOLVED * smallest
    worst = int(values.min(axis=1).argmin())
    return Condition(value, "2-norm", resolved=resolved, frequency=(worst,))


def of_inverse(matrix: Matrix, inverse: Matrix, resolved: bool) -> Condition:
    """Return |W|_2 |W^-1|_2; W^-1 is given, as products of triangular inverses are more accurate.

    Parameters
    ----------
    matrix, inverse : array, shape (C, C)
    resolved : bool
        True if the inverse was computed from given factors: then it is right at any condition.
    """
    if not (np.isfinite(matrix).all() and np.isfinite(inverse).all()):
        raise SolveOverflowError
    value = float(np.linalg.norm(matrix, 2)) * float(np.linalg.norm(inverse, 2))
    channel = int(np.abs(inverse).sum(axis=0).argmax())
    known = resolved or value * len(matrix) * EPS["float64"] < UNRESOLVED
    return Condition(value, "2-norm", resolved=known, channel=channel)


def one_norm(
    maps: Maps,
    transposed: Callable[[], Maps],
    sample: Shape,
    first: tuple[int | None, ...] | None = None,
    products: float = 0.0,
) -> Condition:
    """Return |K|_1 |K^-1|_1, exactly on a small grid and by an estimate from below beyond.

    The parameters are those of `invconv.trust.norms.norms`.
    """
    gain, loss = norms(maps, transposed, sample, first, products)
    channel, *pixel = map(int, np.unravel_index(loss.column, sample))
    exact = gain.exact and loss.exact
    value = gain.value * loss.value
    return Condition(value, "1-norm", exact, channel=channel, pixel=tuple(pixel))
