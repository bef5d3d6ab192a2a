"""How far libraries are from each other, given the same parameters and the same inputs.

In eps x max|result|, for a log-determinant max(|log_det|, 1): a sum of logs may well be zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from invconv_conformance.cases.case import Case
from invconv_conformance.cases.table import CASES
from invconv_conformance.laws.setting import Floats
from invconv_conformance.libraries.library import Column
from invconv_conformance.truth.bounds import EPS, scales

Packed = dict[str, tuple[bytes, tuple[int, ...]]]


class Output(NamedTuple):
    """The arrays of a case in a column that are compared with other columns'."""

    column: Column
    case: str
    arrays: dict[str, Floats]


def packed(arrays: dict[str, Floats]) -> Packed:
    """Return arrays as what pytest-xdist takes from one process to another."""
    return {name: (array.tobytes(), array.shape) for name, array in arrays.items()}


def unpacked(arrays: Packed) -> dict[str, Floats]:
    """Return the arrays."""
    return {name: np.frombuffer(data).reshape(shape) for name, (data, shape) in arrays.items()}


@dataclass(frozen=True)
class Agreement:
    """The largest difference of a quantity between two columns, and the case where it is."""

    dtype: str
    quantity: str
    a: str
    b: str
    difference: float
    case: str
    condition: float


def agreement(outputs: Iterable[Output]) -> list[Agreement]:
    """Return the largest difference for every dtype, quantity and pair of columns."""
    found: dict[tuple[str, str], dict[Column, Floats]] = {}
    for column, case, arrays in outputs:
        for quantity, value in arrays.items():
            found.setdefault((case, quantity), {})[column] = value
    worst: dict[tuple[str, str, str, str], tuple[float, str]] = {}
    for (case, quantity), columns in found.items():
        for (a, x), (b, y) in itertools.combinations(columns.items(), 2):
            if a.dtype == b.dtype:
                first, second = sorted((_name(a), _name(b)))
                key = (a.dtype, quantity, first, second)
                place = (difference(x, y, quantity, a.dtype), case)
                worst[key] = max(worst.get(key, (-1.0, "")), place)
    conditions = {case.name: case for case in CASES}
    return [
        Agreement(*key, value, case, _condition(conditions[case]))
        for key, (value, case) in sorted(worst.items())
    ]


def _name(column: Column) -> str:
    return f"{column.library} {column.device} {column.mode}"


def _condition(case: Case) -> float:
    found = scales(case.conv(), case.spatial_shape)
    return found.gain * found.loss


def difference(x: Floats, y: Floats, quantity: str, dtype: str) -> float:
    """Return the difference of two results in eps x max|result|.

    It is inf if one is not finite, or they have different shapes.
    """
    if x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("inf")
    half = quantity == "log_det" and dtype in ("float16", "bfloat16")
    scale = max(float(np.abs(x).max(initial=0)), float(np.abs(y).max(initial=0)))
    if quantity == "log_det":
        scale = max(scale, 1.0)
    gap = float(np.abs(x - y).max(initial=0))
    return gap / (EPS["float32" if half else dtype] * scale) if gap else 0.0
