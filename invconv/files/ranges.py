"""Checks that numbers are finite and fit a dtype, without a copy of a whole array."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from invconv.arrays.array_ops import ops_of
from invconv.arrays.namespaces import Array, dtype_name, namespace
from invconv.operators.base.checks import callers_level

_AT_ONCE = 2**16  # numbers

Values = np.ndarray[Any, Any]


def finite(values: Values) -> bool:
    """Tell whether all values are finite: NaN passes through minimum and maximum."""
    return values.size == 0 or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def judge_range(arrays: Mapping[str, Values], like: Array, argument: str) -> None:
    """Raise if a number is too large for the dtype of ``like``; warn if one becomes zero.

    ``arrays`` are NumPy's; those of integers pass. ``argument`` is the name of the argument by
    which the user chose the dtype, for messages.
    """
    kind, dtype = namespace(like).finfo(like.dtype), dtype_name(like.dtype)
    largest, spacing = float(kind.max), float(kind.smallest_normal) * float(kind.eps)
    # XLA computes float16 in float32, which flushes none of its numbers
    flushes = ops_of(like).flushes_subnormals and dtype != "float16"
    least = float(kind.smallest_normal) if flushes else spacing
    rounded_off = least - spacing / 2 if flushes else spacing / 2  # spacing / 2 is 0 in float64
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        top = float(max(abs(array.min()), abs(array.max()))) if array.size else 0.0
        if top > largest:
            raise ValueError(
                f"{argument}: expected a dtype that holds {name}, up to {top}, got {dtype}, "
                f"up to {largest}"
            )
        lost, size = _vanishing(array, rounded_off)
        if lost:
            warnings.warn(
                f"{argument}: {lost} of the {array.size} numbers of {name}, up to {size:.3g}, are "
                f"zero in {dtype}, whose smallest is {least:.3g}",
                stacklevel=callers_level(),
            )


def _vanishing(array: Values, limit: float) -> tuple[int, float]:
    """Return the count of nonzero numbers up to a limit, and the largest of them."""
    count, largest = 0, 0.0
    for part in np.array_split(array.reshape(-1), 1 + array.size // _AT_ONCE):
        sizes = np.abs(part)
        lost = sizes[(sizes > 0) & (sizes <= limit)]
        count, largest = count + lost.size, max(largest, float(lost.max(initial=0)))
    return count, largest
