"""How far libraries are from each other, given the same parameters and the same inputs.

In eps x max|result|, for a log-determinant max(|log_det|, 1): a sum of logs may well be zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from invconv_conformance.cases.case import Case
from invconv_conformance.laws.law import Floats, largest
from invconv_conformance.libraries.library import Column
from invconv_conformance.run.check import NAMED
from invconv_conformance.truth.bounds import EPS, scales

Packed = dict[str, tuple[bytes, tuple[int, ...]]]


class Output(NamedTuple):
    """The arrays of a case in a column, packed, that are compared with other columns'."""

    column: Column
    case: str
    arrays: Packed


def packed(arrays: dict[str, Floats]) -> Packed:
    """Return arrays as what pytest-xdist takes from one process to another."""
    return {name: (array.tobytes(), array.shape) for name, array in arrays.items()}


def agreement(outputs: Iterable[Output]) -> list[dict[str, Any]]:
    """Return the largest difference for every dtype, quantity and pair of columns, and its case."""
    found: dict[tuple[str, str], dict[Column, Floats]] = {}
    for column, case, arrays in outputs:
        for quantity, (data, shape) in arrays.items():
            found.setdefault((case, quantity), {})[column] = np.frombuffer(data).reshape(shape)
    worst: dict[tuple[str, str, str, str], tuple[float, str]] = {}
    for (case, quantity), columns in found.items():
        for (a, x), (b, y) in itertools.combinations(columns.items(), 2):
            if a.dtype == b.dtype:
                first, second = sorted(" ".join(column[:3]) for column in (a, b))
                key = (a.dtype, quantity, first, second)
                place = (difference(x, y, quantity, a.dtype), case)
                worst[key] = max(worst.get(key, (-1.0, "")), place)
    names = "dtype", "quantity", "a", "b", "difference", "case", "condition"
    rows = [(*key, *place, _condition(NAMED[place[1]])) for key, place in sorted(worst.items())]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _condition(case: Case) -> float:
    return scales(case.conv(), case.spatial_shape).condition


def difference(x: Floats, y: Floats, quantity: str, dtype: str) -> float:
    """Return the difference of two results in eps x max|result|.

    It is inf if one is not finite, or they have different shapes.
    """
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.inf
    scale, gap = max(largest(x), largest(y)), largest(x - y)
    if quantity == "log_det":
        scale = max(scale, 1.0)
        dtype = "float64" if dtype == "float64" else "float32"
    return gap / (EPS[dtype] * scale) if gap else 0.0
