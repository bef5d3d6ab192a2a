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
from invconv.arrays.validation import require_real
from invconv.files.container import FLOW_SCHEMA, Stored, Values, reading, write
from invconv.files.description import build, describe, require
from invconv.operators.base.checks import callers_level
from invconv.operators.base.operator import InvertibleConv

_SCHEMA = "invconv-operator/1"
_AT_ONCE = 2**16  # numbers, of which a copy is made


def save(conv: InvertibleConv, path: str | os.PathLike[str]) -> None:
    """Write an operator to a file, whole or not at all.

    The arrays of any library are copied to host memory and keep their dtype (float64, float32,
    float16, bfloat16; a permutation is written as int64). The same operator gives the same bytes
    in every library. Save a torch layer by ``save(layer.operator(), path)``, also a layer with
    ``max_gain``: for an operator that `bounded` made, the operator before the bound and the bound
    are written.

    Parameters
    ----------
    conv : InvertibleConv
        An operator with finite arrays.
    path : str or path-like
        By custom ``*.safetensors``. An existing file is replaced after the new one has been read
        back and is on disk; it stays as it was if anything goes wrong.

    Raises
    ------
    TypeError
        If ``conv`` is no operator, or its class has been defined again since.
    ValueError
        If an array holds NaN or inf, or there are too many or too deeply nested operators.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from invconv import EmergingConv, load, save
    >>> conv = EmergingConv.init(3, rng=np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(conv, pathlib.Path(folder, "conv.safetensors"))
    ...     same = load(pathlib.Path(folder, "conv.safetensors"))
    >>> x = np.ones((3, 8, 8))
    >>> bool(np.all(same.forward(x) == conv.forward(x)))
    True
    """
    arrays: dict[str, Array] = {}
    description = {"schema": _SCHEMA, "operator": describe(conv, arrays)}
    write(path, "conv", description, arrays, operator_of)


def load(path: str | os.PathLike[str], like: Array | None = None) -> InvertibleConv:
    """Read an operator that `save` wrote.

    Everything is checked before it is used: a checksum (files of 0.2.0 have none), the sizes
    against the length of the file, the description against the classes, the numbers for NaN and
    inf. No code is run from a file. The checksum detects accidental damage; it does not detect
    changes on purpose, since anyone can compute it anew.

    Parameters
    ----------
    path : str or path-like
    like : array, optional
        An array of the library, dtype and device to use, as in ``conv.asarrays(like)``; NumPy
        arrays of the dtype in the file unless given. NumPy has no bfloat16, so such a file needs
        ``like``.

    Returns
    -------
    InvertibleConv

    Raises
    ------
    InvalidFileError
        If the file is no file of an operator, or is damaged.
    TypeError
        If the file holds bfloat16 and ``like`` is not given.
    ValueError
        If a number in the file is beyond the range of ``like``'s dtype.
    OSError
        If the file cannot be read; FileNotFoundError if it does not exist.

    Warns
    -----
    UserWarning
        If a number in the file is too small for ``like``'s dtype, and becomes zero.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from invconv import EmergingConv, load, save
    >>> conv = EmergingConv.init(3, rng=np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(conv, f"{folder}/conv.safetensors")
    ...     same = load(f"{folder}/conv.safetensors")
    >>> x = np.ones((1, 3, 4, 4))
    >>> bool((conv.forward(x) == same.forward(x)).all())
    True
    """
    if like is not None:
        require_real("like", like)
    with reading(path) as stored:
        if like is None and stored.dtype == "bfloat16":
            raise TypeError(
                f"like: {stored.name} holds bfloat16, which NumPy has not; pass an array of torch "
                f"or JAX, or a float32 one, which holds every bfloat16 number exactly"
            )
        conv = operator_of(stored)
    return conv if like is None else in_library(conv, like)


def in_library(conv: InvertibleConv, like: Array, argument: str = "like") -> InvertibleConv:
    """Return an operator of NumPy arrays in the library, dtype and device of ``like``."""
    arrays: dict[str, Values] = {}
    describe(conv, arrays)  # those before a bound
    judge_range(arrays, like, argument)
    return conv._map(lambda array: from_host(array, like))


def operator_of(stored: Stored) -> InvertibleConv:
    """Return the operator of a file, or raise InvalidFileError."""
    document = stored.document
    schema = document.get("schema")
    hint = "; invconv_torch.load and invconv_jax.load read flows" if schema == FLOW_SCHEMA else ""
    require(schema == _SCHEMA, f"expected the schema {_SCHEMA!r}, got {schema!r:.80}{hint}")
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
