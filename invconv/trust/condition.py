"""Condition numbers |K| |K^-1| in NumPy float64: 2-norm of matrices, 1-norm of other maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Shape
from invconv.trust.norms import Matrix, Norm, SolveOverflowError

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
UNRESOLVED = 0.1  # trust the smallest singular value only if rounding is below this part of it
OVERFLOW = "the inverse, or its condition number, is beyond the range of float64 (1.8e308)"
FAILURES = (SingularConvError, SolveOverflowError, np.linalg.LinAlgError)  # no finite condition
_MOST_GRIDS = 64  # of all kinds, that an operator remembers
T = TypeVar("T")


@dataclass(frozen=True)
class Condition:
    """A condition number |K| |K^-1|, and the channel and pixel, or frequency, that cause it.

    `invconv.Diagnosis` describes the attributes.
    """

    value: float
    norm: str
    exact: bool = True
    resolved: bool = True
    channel: int | None = None
    pixel: Shape | None = None
    frequency: tuple[float, ...] | None = None
    trouble: str = ""


class ConditionCache(dict[tuple[str, Shape], Any]):
    """The last results of an operator, by kind and grid; its copies and pickles drop them."""

    def find(self, kind: str, shape: Shape, compute: Callable[[], T]) -> T:
        """Return the result of a kind on a grid; compute and keep it if it is not known."""
        result: T | None = self.get((kind, shape))
        if result is None:
            result = compute()
            if len(self) >= _MOST_GRIDS:
                self.clear()
            self[kind, shape] = result
        return result


def digits_left(number: float, eps: float) -> float:
    """Return -log10(number x eps), the decimal digits that a condition number leaves, at least 0.

    If nothing is lost, 2^-23 leaves 6.9 digits, 2^-52 leaves 15.7.
    """
    return max(0.0, -math.log10(max(1.0, number) * eps)) if math.isfinite(number) else 0.0


def of_spectrum(matrices: Matrix, rounding: float) -> Condition:
    """Return the largest over the smallest singular value of blocks (F, C, C), one a frequency.

    Rounding may change a singular value by ``rounding``. The result's ``frequency`` is (f,), the
    index of the worst block.
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

    ``resolved`` is True if it was computed from given factors: then it is right at any condition.
    """
    if not (np.isfinite(matrix).all() and np.isfinite(inverse).all()):
        raise SolveOverflowError
    value = float(np.linalg.norm(matrix, 2)) * float(np.linalg.norm(inverse, 2))
    channel = int(np.abs(inverse).sum(axis=0).argmax())
    known = resolved or value * len(matrix) * EPS["float64"] < UNRESOLVED
    return Condition(value, "2-norm", resolved=known, channel=channel)


def of_norms(gain: Norm, loss: Norm, sample: Shape, norm: float) -> Condition:
    """Return |K| |K^-1|, given both norms of a map of samples (C, *spatial)."""
    channel, *pixel = map(int, np.unravel_index(loss.column, sample))
    exact, value = gain.exact and loss.exact, gain.value * loss.value
    return Condition(value, f"{norm:g}-norm", exact, channel=channel, pixel=tuple(pixel))
