"""The files behind `save` and `load`: safetensors files with a description in JSON.

A file (https://github.com/huggingface/safetensors) is a header of JSON, then arrays, little-endian
in C order. Its metadata has one entry, ``invconv``, JSON again: an object with a "schema". What is
read is checked before it is used: sizes against the length of the file, dtypes, and numbers for
NaN and inf.

Called by `files.operator_files` and `files.flow_files`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import Array, dtype_name, is_half, to_numpy
from invconv.arrays.validation import require_array
from invconv.files.description import Json, parse, require
from invconv.files.ranges import finite
from invconv.files.whole_files import replacing

FLOW_SCHEMA = "invconv-flow/1"
_KEY = "invconv"
_MOST_HEADER_BYTES = 2**24
_MOST_ARRAYS = 2**14
_REAL, _INTEGRAL = ("F64", "F32", "F16", "BF16"), "I64"  # safetensors' names

Values = np.ndarray[Any, Any]


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Stored]:
    """Yield the arrays of a file; what is raised in the block as InvalidFileError names the file.

    Raises
    ------
    InvalidFileError
        If it is no such file, or a damaged one.
    OSError
        If it cannot be read; FileNotFoundError if there is none.
    """
    safetensors, name = _safetensors(), named(path)
    try:
        _require_sound_header(name)
        with safetensors.safe_open(name, framework="np", backend="pread") as file:
            yield Stored(name, file)
    except InvalidFileError as error:
        raise InvalidFileError(f"{name}: {error!s:.500}") from None
    except safetensors.SafetensorError as error:
        raise InvalidFileError(f"{name}: no whole safetensors file: {error!s:.500}") from None


class Document:
    """What is to be written: a description, and arrays on the host.

    Parameters
    ----------
    what : str
        The name of the argument that is saved, for messages.
    description : dict
        With an entry "schema".
    arrays : mapping of str to array
        Of any library.

    Attributes
    ----------
    values : dict
        The arrays on the host, those of half precision in float32.

    Raises
    ------
    ValueError
        If an array holds NaN or inf, or there is too much of it.
    """

    def __init__(self, what: str, description: Json, arrays: Mapping[str, Array]) -> None:
        import json  # importing invconv is the quicker without it

        text = json.dumps(description, separators=(",", ":"))
        if len(arrays) > _MOST_ARRAYS or 2 * len(text) > _MOST_HEADER_BYTES:
            raise ValueError(
                f"{what}: expected {_MOST_ARRAYS} arrays at most, described in "
                f"{_MOST_HEADER_BYTES // 2} characters, got {len(arrays)} in {len(text)}"
            )
        self._metadata, self._arrays = {_KEY: text}, arrays
        self.values = {name: _on_host(name, array) for name, array in arrays.items()}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        safetensors, target = _safetensors(), named(path)
        for name, array in self._arrays.items():
            self.values[name] = _to_be_written(self.values[name], array)
        with replacing(target) as part:
            try:
                safetensors.numpy.save_file(self.values, part, self._metadata)
            except safetensors.SafetensorError as error:
                raise OSError(f"{target}: cannot be written: {error}") from None


def named(path: Any) -> str:
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


class Stored(Mapping[str, Values]):
    """The arrays of an open file, read when they are asked for.

    Attributes
    ----------
    name : str
        Of the file.
    document : dict
        What it says of the arrays.
    kinds : dict
        The arrays' dtypes, as safetensors calls them.
    shapes : dict
    """

    def __init__(self, name: str, file: Any) -> None:
        names = file.keys()
        require(len(names) <= _MOST_ARRAYS, f"{len(names)} arrays are more than {_MOST_ARRAYS}")
        self._file, self.name = file, name
        slices = {name: file.get_slice(name) for name in names}
        self.kinds = {name: part.get_dtype() for name, part in slices.items()}
        self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        for name, kind in self.kinds.items():
            known = kind in (*_REAL, _INTEGRAL)
            require(known, f"{name!r} is {kind}; expected one of {', '.join(_REAL)} or {_INTEGRAL}")
        real = {kind for kind in self.kinds.values() if kind != _INTEGRAL}
        require(len(real) == 1, f"expected arrays of one real dtype, got {sorted(real) or 'none'}")
        self.document = _document(file.metadata())

    @property
    def real_kind(self) -> str:
        """The one real dtype."""
        return str(next(kind for kind in self.kinds.values() if kind != _INTEGRAL))

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


def _document(metadata: dict[str, str] | None) -> Json:
    """Return the description in a file's metadata."""
    text = (metadata or {}).get(_KEY)
    require(text is not None, f"its metadata has no entry {_KEY!r}, as invconv.save writes")
    try:
        document: Json = parse(str(text))
    except InvalidFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(f"the description is no JSON: {error}") from None
    require(isinstance(document, dict), "the description is no JSON object")
    return document


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
