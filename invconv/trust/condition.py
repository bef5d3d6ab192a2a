"""Condition numbers |K| |K^-1| in NumPy float64: 2-norm of matrices, 1-norm of other maps."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Shape, size
from invconv.kernels.primitives import Map
from invconv.trust import limits

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Maps = tuple[Map, Map]


class SolveOverflowError(ArithmeticError):
    """A solve overflowed, or gave NaN, or all numbers underflowed."""


def norms(
    maps: Maps,
    transposed: Callable[[], Maps],
    sample: Shape,
    first: tuple[int | None, ...],
    products: float,
) -> tuple[float, float, Shape, bool]:
    """Return |K|_1, |K^-1|_1, the place of K^-1's largest column, and whether the norms are exact.

    On a small grid they are exact; on larger ones they are estimates from below. ``maps`` are
    x -> K x and y -> K^-1 y, on float64 arrays (B, *sample), sample = (C, *spatial); ``transposed``
    returns x -> K^T x and y -> K^-T y, for an estimate. Every column is a shift of the column of
    the pixel ``first``, which is None along an axis without such a pixel. K x takes ``products``
    products for one sample.
    """
    numbers = np.arange(size(sample)).reshape(sample)
    for axis, pixel in enumerate(first):
        if pixel is not None:
            numbers = np.take(numbers, [pixel], axis=axis + 1)
    columns = numbers.reshape(-1)
    exact = len(columns) * products <= limits.EXACT_PRODUCTS
    exact = exact and len(columns) * size(sample) <= limits.EXACT_NUMBERS
    if exact:
        units = np.zeros((len(columns), size(sample)))
        units[np.arange(len(columns)), columns] = 1.0
        gain, sums = (np.abs(_on_rows(run, units, sample)).sum(axis=1) for run in maps)
        found = gain.max(), sums.max(), columns[sums.argmax()]
    else:
        pairs = zip(maps, transposed(), strict=True)
        (gain, _), largest = (map_norm(*pair, sample) for pair in pairs)
        found = gain, *largest
    if not min(found[:2]) > 0:  # numbers of a regular map are too small for float64
        raise SolveOverflowError
    place = tuple(map(int, np.unravel_index(found[2], sample)))
    return float(found[0]), float(found[1]), place, exact


def map_norm(apply: Map, apply_t: Map, sample: Shape) -> tuple[float, int]:
    """Estimate the 1-norm of a linear map on arrays (B, *sample); return it and its column.

    The estimate is Hager's and Higham's (ACM Trans. Math. Softw. 14, 1988): it climbs from several
    vectors at once to a column of the matrix with a large sum. The vectors are the ones of LAPACK's
    xLACON, and random signs that are drawn anew: a matrix may hide its large columns from fixed
    vectors.
    """
    n = size(sample)
    alternating = (-1.0) ** np.arange(n) * (1 + np.arange(n) / max(1, n - 1))
    x = np.vstack([np.ones(n), alternating, np.random.default_rng().choice([-1.0, 1.0], n)])
    x /= np.abs(x).sum(axis=1, keepdims=True)
    best, column = 0.0, 0
    for _ in range(4):  # LAPACK's climbs five times at most
        y = _on_rows(apply, x, sample)
        sums = np.abs(y).sum(axis=1)
        slope = np.abs(_on_rows(apply_t, np.where(y < 0, -1.0, 1.0), sample))
        if sums.max() > best:
            best = float(sums.max())
            row = sums.argmax()  # a unit vector, or a start that climbs to one
            column = int((x if np.count_nonzero(x[row]) == 1 else slope)[row].argmax())
        if slope.max() <= best * (1 + 1e-12):
            break
        steepest = np.unique(slope.argmax(axis=1))
        x = np.zeros((len(steepest), n))
        x[np.arange(len(steepest)), steepest] = 1.0
    return best, column


def _on_rows(function: Map, rows: Matrix, sample: Shape) -> Matrix:
    result: Matrix = function(rows.reshape(-1, *sample)).reshape(rows.shape)
    if not np.isfinite(result).all():
        raise SolveOverflowError
    return result


EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
HALF_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # of types that are solved in float32
OVERFLOW = "the inverse, or its condition number, is beyond the range of float64 (1.8e308)"
FAILURES = (SingularConvError, SolveOverflowError, np.linalg.LinAlgError)  # no finite condition
T = TypeVar("T")


@dataclass(frozen=True)
class Condition:
    """A condition number |K| |K^-1| and its cause; `invconv.Diagnosis` explains the attributes."""

    condition: float
    norm: str
    exact: bool = True
    resolved: bool = True
    channel: int | None = None
    pixel: Shape | None = None
    frequency: tuple[float, ...] | None = None
    trouble: str = ""


class ConditionCache(dict[tuple[str, Shape], Any]):
    """The last results of an operator, by kind and grid; its copies and pickles drop them.

    ``unchecked`` are the grids on which `prepare` was told not to judge. ``fixed`` says that the
    operator's arrays are never edited, so that solvers of least squares may be kept, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unchecked: set[Shape] = set()
        self.fixed = False

    def find(self, kind: str, shape: Shape, compute: Callable[[], T]) -> T:
        """Return the result of a kind on a grid; compute and keep it if it is not known."""
        result: T | None = self.get((kind, shape))
        if result is None:
            result = compute()
            if len(self) >= limits.REMEMBERED:
                self.clear()
            self[kind, shape] = result
        return result


def digits_left(number: float, eps: float) -> float:
    """Return -log10(number x eps), at least 0: the decimal digits a condition number leaves."""
    return max(0.0, -math.log10(max(1.0, number) * eps)) if math.isfinite(number) else 0.0


def of_spectrum(matrices: Matrix, rounding: float) -> Condition:
    """Return the largest over the smallest singular value of blocks (F, C, C), one per frequency.

    Rounding may change a singular value by ``rounding``; ``frequency`` is (f,), the worst block.
    """
    if not np.isfinite(matrices).all():
        raise SolveOverflowError
    one = matrices.shape[-1] == 1
    values = np.abs(matrices[..., 0]) if one else np.linalg.svd(matrices, compute_uv=False)
    smallest = float(values.min())
    value = float(values.max()) / smallest if smallest else math.inf
    resolved = rounding < limits.UNRESOLVED * smallest
    worst = int(values.min(axis=1).argmin())
    return Condition(value, "2-norm", resolved=resolved, frequency=(worst,))


def of_inverse(matrix: Matrix, inverse: Matrix, resolved: bool) -> Condition:
    """Return |W|_2 |W^-1|_2; W^-1 is given, as products of triangular inverses are more accurate.

    ``resolved`` is True if it was computed from given factors: then it is right at any condition.
    """
    if not (np.isfinite(matrix).all() and np.isfinite(inverse).all()):
        raise SolveOverflowError
    value = float(np.linalg.norm(matrix, 2)) * float(np.linalg.norm(inverse, 2))
    channel = int(np.abs(inverse).sum(axis=0).argmax())
    known = resolved or value * len(matrix) * EPS["float64"] < limits.UNRESOLVED
    return Condition(value, "2-norm", resolved=known, channel=channel)


def tried(measure: Callable[[], T], failed: T) -> T:
    """Return the result of a function, or another if it raises one of `FAILURES`."""
    try:
        with np.errstate(all="ignore"):
            return measure()
    except FAILURES:
        return failed
