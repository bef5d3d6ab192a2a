"""Operators in files: any library writes them, any library reads them, and nothing in them runs.

A file is a safetensors file (https://github.com/huggingface/safetensors): a header of JSON, then
the arrays, little-endian in C order, by the names of `InvertibleConv.parameters` (and those of
PLU's permutation and sign). Its metadata has one entry, ``invconv``, JSON again, which says what
operator they are of:

    {"schema": "invconv-operator/1", "operator": {"class": "Conv1x1", ...}}

with the operator as in `invconv.files.description`.

Public as `invconv.save` and `invconv.load`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import Array, dtype_name, from_host, is_half, to_numpy
from invconv.arrays.validation import require_array, require_real
from invconv.files.description import Json, build, describe, parse, require
from invconv.files.ranges import finite, judge_range
from invconv.files.whole_files import replacing
from invconv.operators.base.operator import InvertibleConv

SCHEMA = "invconv-operator/1"
_KEY = "invconv"
_MOST_HEADER_BYTES = 2**24
_MOST_ARRAYS = 2**14
_REAL, _INTEGRAL = ("F64", "F32", "F16", "BF16"), "I64"  # safetensors' names

Values = np.ndarray[Any, Any]


def save(conv: InvertibleConv, path: str | os.PathLike[str]) -> None:
    """Write an operator to a file, whole or not at all.

    The arrays of any library are copied to host memory and keep their dtype (float64, float32,
    float16, bfloat16; a permutation is written as int64). The same operator gives the same bytes,
    whichever library its arrays are of. A torch layer is saved by ``save(layer.operator(), path)``,
    one with ``max_gain`` too: of an operator that `bounded` made, the bound is written, and what
    it was made of.

    Parameters
    ----------
    conv : InvertibleConv
        Of invconv's own classes, whose arrays are finite.
    path : str or path-like
        By custom ``*.safetensors``. A file that is there is replaced when the new one is on disk,
        and left as it was if anything goes wrong.

    Raises
    ------
    TypeError
        If it is no operator, or one of a class that is not invconv's own.
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
    safetensors, target = _safetensors(), _named(path)
    arrays: dict[str, Array] = {}
    document = {"schema": SCHEMA, "operator": describe(conv, arrays)}
    metadata = {_KEY: json.dumps(document, separators=(",", ":"))}
    if len(arrays) > _MOST_ARRAYS or 2 * len(metadata[_KEY]) > _MOST_HEADER_BYTES:
        raise ValueError(
            f"conv: expected {_MOST_ARRAYS} arrays at most, described in {_MOST_HEADER_BYTES // 2} "
            f"characters, got {len(arrays)} in {len(metadata[_KEY])}"
        )
    values = {name: _on_host(name, array) for name, array in arrays.items()}
    try:
        build(document["operator"], values, set())  # what is written can be read
    except InvalidFileError as error:
        raise ValueError(f"conv: cannot be saved: {error}") from None
    for name, array in arrays.items():
        values[name] = _to_be_written(values[name], array)
    with replacing(target) as part:
        try:
            safetensors.numpy.save_file(values, part, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"{target}: cannot be written: {error}") from None


def load(path: str | os.PathLike[str], like: Array | None = None) -> InvertibleConv:
    """Read an operator that `save` wrote.

    Everything is checked before it is used: the sizes against the length of the file, the
    description against the classes, the numbers for NaN and inf. No code is run from a file.

    Parameters
    ----------
    path : str or path-like
    like : array, optional
        Whose library, dtype and device to use, as in ``conv.asarrays(like)``; NumPy arrays of the
        dtype in the file unless given. NumPy has no bfloat16, so such a file needs ``like``.

    Returns
    -------
    InvertibleConv

    Raises
    ------
    InvalidFileError
        If it is no such file, or a damaged one.
    TypeError
        If the file holds bfloat16 and ``like`` is not given.
    ValueError
        If a number in the file is beyond the range of ``like``'s dtype.
    OSError
        If the file cannot be read; FileNotFoundError if there is none.

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
    safetensors, name = _safetensors(), _named(path)
    if like is not None:
        require_real("like", like)
    try:
        _require_sound_header(name)
        with safetensors.safe_open(name, framework="np", backend="pread") as file:
            stored = _Stored(file)
            if like is None and "BF16" in stored.kinds.values():
                raise TypeError(
                    f"like: {name} holds bfloat16, which NumPy has not; pass an array of torch or "
                    f"JAX, or a float32 one, which holds every bfloat16 number exactly"
                )
            conv = _read(stored, file.metadata())
    except InvalidFileError as error:
        raise InvalidFileError(f"{name}: {error!s:.500}") from None
    except safetensors.SafetensorError as error:
        raise InvalidFileError(f"{name}: no whole safetensors file: {error!s:.500}") from None
    if like is None:
        return conv
    judge_range(conv, like)
    return conv._map(lambda array: from_host(array, like))


def _named(path: Any) -> str:
    """Return a path as text, or raise where it is none."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(
            f"path: expected the name of a file, as text or a pathlib.Path, got "
            f"{type(path).__name__}"
        )
    name = os.fsdecode(path)
    if not name or "\0" in name:
        raise ValueError(f"path: expected the name of a file, got {name!r}")
    return name


class _Stored(Mapping[str, Values]):
    """The arrays of an open file, read when they are asked for."""

    def __init__(self, file: Any) -> None:
        names = file.keys()
        require(len(names) <= _MOST_ARRAYS, f"{len(names)} arrays are more than {_MOST_ARRAYS}")
        self._file = file
        self.kinds = {name: file.get_slice(name).get_dtype() for name in names}
        for name, kind in self.kinds.items():
            known = kind in (*_REAL, _INTEGRAL)
            require(known, f"{name!r} is {kind}; expected one of {', '.join(_REAL)} or {_INTEGRAL}")
        real = {kind for kind in self.kinds.values() if kind != _INTEGRAL}
        require(len(real) == 1, f"expected arrays of one real dtype, got {sorted(real) or 'none'}")

    def __getitem__(self, name: str) -> Values:
        if self.kinds[name] == "BF16":
            _ml_dtypes()  # makes the dtype known to NumPy
        try:
            values: Values = self._file.get_tensor(name)
        except ValueError as error:  # a shape that no array of NumPy has
            raise InvalidFileError(f"{name!r}: {error}") from None
        if self.kinds[name] == "BF16":
            values = values.astype(np.float32)
        require(finite(values), f"{name!r} holds NaN or inf")
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)


def _read(stored: _Stored, metadata: dict[str, str] | None) -> InvertibleConv:
    text = (metadata or {}).get(_KEY)
    require(text is not None, f"its metadata has no entry {_KEY!r}, as invconv.save writes")
    try:
        document: Json = parse(str(text))
    except InvalidFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(f"the description is no JSON: {error}") from None
    require(isinstance(document, dict), "the description is no JSON object")
    schema = document.get("schema")
    require(schema == SCHEMA, f"expected the schema {SCHEMA!r}, got {schema!r:.80}")
    require(set(document) == {"schema", "operator"}, f"the description has {sorted(document)}")
    used: set[str] = set()
    conv = build(document["operator"], stored, used)
    require(used == set(stored), f"the operator has no arrays {sorted(set(stored) - used)[:9]}")
    return conv


def _require_sound_header(name: str) -> None:
    """Raise unless the header is as long as it may be, and names no entry of an object twice."""
    if os.path.exists(name) and not os.path.isdir(name):
        require(os.path.isfile(name), "not an ordinary file")
    with open(name, "rb") as file:
        declared = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
        require(
            size >= 8, f"no safetensors file: {size} bytes, which is less than the size of a header"
        )
        most = min(_MOST_HEADER_BYTES, size - 8)
        require(
            declared <= most, f"no safetensors file: a header of {declared} bytes, at most {most}"
        )
        header = file.read(declared)
    try:
        parse(header)
    except InvalidFileError:
        raise
    except (ValueError, RecursionError):
        pass  # no JSON: safetensors says so


def _on_host(name: str, array: Any) -> Values:
    """Return an array's values on the host, those of half precision in float32."""
    require_array(name, array)
    values = to_numpy(array)
    if not finite(values):
        raise ValueError(f"{name}: expected finite numbers, got NaN or inf")
    return values


def _to_be_written(values: Values, array: Array) -> Values:
    """Return an array's values in C order and in the dtype of the file."""
    if values.dtype.kind != "f":
        return np.ascontiguousarray(values, dtype=np.int64)
    if is_half(array.dtype, array):
        brain = dtype_name(array.dtype) == "bfloat16"
        values = values.astype(_ml_dtypes().bfloat16 if brain else np.float16)
    return np.ascontiguousarray(values)


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("files need safetensors: pip install 'invconv[files]'") from error
    return safetensors


def _ml_dtypes() -> Any:
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("bfloat16 needs ml_dtypes: pip install 'invconv[files]'") from error
    return ml_dtypes
