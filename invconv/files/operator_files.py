"""Operators in files: any library writes and reads them, and no code runs from them.

A file is one of `invconv.files.container` with the arrays by the names of
`InvertibleConv.parameters` (and PLU's permutation and sign), and with a description of the operator
(`invconv.files.description`):

    {"schema": "invconv-operator/1", "operator": {"class": "Conv1x1", ...}}
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

import numpy as np

from invconv.arrays.array_ops import ops_of
from invconv.arrays.namespaces import Array, dtype_name, from_host, namespace
from invconv.files.container import Stored, Values, write
from invconv.files.description import build, describe, require
from invconv.operators.base.checks import callers_level
from invconv.operators.base.operator import InvertibleConv

_SCHEMA = "invconv-operator/1"
_AT_ONCE = 2**16  # numbers, of which a copy is made


def write_operator(path: str | os.PathLike[str], argument: str, conv: InvertibleConv) -> None:
    """Write an operator to a file, whole or not at all; ``argument`` is its name in errors."""
    arrays: dict[str, Array] = {}
    description = {"schema": _SCHEMA, "operator": describe(conv, arrays)}
    write(path, argument, description, arrays, operator_of)


def in_library(conv: InvertibleConv, like: Array, argument: str) -> InvertibleConv:
    """Return an operator of NumPy arrays in the library, dtype and device of ``like``."""
    arrays: dict[str, Values] = {}
    describe(conv, arrays)  # those before a bound
    judge_range(arrays, like, argument)
    return conv._map(lambda array: from_host(array, like))


def operator_of(stored: Stored) -> InvertibleConv:
    """Return the operator of a file, or raise InvalidFileError."""
    document = stored.document
    schema = document.get("schema")
    require(schema == _SCHEMA, f"expected the schema {_SCHEMA!r}, got {schema!r:.80}")
    require(set(document) == {"schema", "operator"}, f"the description has {sorted(document)}")
    used: set[str] = set()
    conv = build(document["operator"], stored, used)
    require(used == set(stored), f"the operator has no arrays {sorted(set(stored) - used)[:9]}")
    return conv


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
