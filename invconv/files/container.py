"""Reading the files behind `save` and `load`: safetensors files with a description in JSON.

A file (https://github.com/huggingface/safetensors) is a header of JSON, then arrays, little-endian
in C order. Its metadata has two entries: ``invconv``, JSON again, an object with a "schema", and
``invconv-crc32``, a checksum, which files of 0.2.0 lack. A file is checked before it is used: the
checksum, sizes against the length of the file, dtypes, and numbers for NaN and inf.

`files.document` writes the files.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.files.description import Json, parse, require
from invconv.files.ranges import finite

FLOW_SCHEMA = "invconv-flow/1"
KEY, CHECKSUM = "invconv", "invconv-crc32"
MOST_HEADER_BYTES = 2**24
MOST_ARRAYS = 2**14
_REAL = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_INTEGRAL = "I64"
KINDS = _REAL | {"int64": _INTEGRAL}  # safetensors' names of dtypes

Values = np.ndarray[Any, Any]


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Stored]:
    """Yield the arrays of a file; an InvalidFileError in the block is raised with the file's name.

    Raises
    ------
    InvalidFileError
        If the file is no file of invconv, or is damaged.
    OSError
        If the file cannot be read; FileNotFoundError if it does not exist.
    """
    name = named(path)
    try:
        yield read_file(name)
    except InvalidFileError as error:
        raise InvalidFileError(f"{name}: {error!s:.500}") from None


def read_file(name: str) -> Stored:
    """Return the arrays of a file."""
    safetensors = _safetensors()
    _require_sound_header(name)
    try:
        with safetensors.safe_open(name, framework="np", backend="pread") as file:
            return Stored(name, file)
    except safetensors.SafetensorError as error:
        raise InvalidFileError(f"no whole safetensors file: {error!s:.500}") from None


def named(path: Any) -> str:
    """Return a path as text, or raise if it is no path."""
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
    """The arrays of a file.

    Attributes
    ----------
    name : str
        The name of the file.
    document : dict
        The description of the arrays.
    kinds : dict
        The arrays' dtypes, by safetensors' names.
    shapes : dict
    """

    def __init__(self, name: str, file: Any) -> None:
        names = file.keys()
        require(len(names) <= MOST_ARRAYS, f"{len(names)} arrays are more than {MOST_ARRAYS}")
        slices = {name: file.get_slice(name) for name in names}
        self.name = name
        self.kinds = {name: part.get_dtype() for name, part in slices.items()}
        self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        for name, kind in self.kinds.items():
            known = ", ".join(_REAL.values())
            fits = kind in KINDS.values()
            require(fits, f"{name!r} is {kind}; expected one of {known} or {_INTEGRAL}")
        if "BF16" in self.kinds.values():
            ml_dtypes()  # makes the dtype known to NumPy
        metadata: dict[str, str] = file.metadata() or {}
        text = metadata.get(KEY, "")
        require(KEY in metadata, f"its metadata has no entry {KEY!r}, as invconv.save writes")
        self._arrays = {name: _array(file, name) for name in names}
        stored = metadata.get(CHECKSUM)
        intact = stored is None or stored == checksum(text, self._arrays)
        require(intact, "damaged: its contents do not fit the checksum they were written with")
        real = {kind for kind in self.kinds.values() if kind != _INTEGRAL}
        require(
            len(real) == 1,
            f"expected arrays of one real dtype, got {sorted(real) or 'none'}; cast them to one "
            "dtype before they are saved",
        )
        self.document = _document(text)

    @property
    def dtype(self) -> str:
        """The one real dtype: "float64", "float32", "float16" or "bfloat16"."""
        return next(name for name, kind in _REAL.items() if kind in self.kinds.values())

    def __getitem__(self, name: str) -> Values:
        values = self._arrays[name]
        if self.kinds[name] == "BF16":
            values = values.astype(np.float32)
        require(finite(values), f"{name!r} holds NaN or inf")
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)


def _array(file: Any, name: str) -> Values:
    try:
        values: Values = file.get_tensor(name)
    except ValueError as error:  # a shape that NumPy does not allow
        raise InvalidFileError(f"{name!r}: {error}") from None
    return values


def checksum(text: str, arrays: Mapping[str, Values]) -> str:
    """Return the CRC-32 of a description and of arrays in the dtypes of a file, as 8 digits.

    The checksum guards against accidents: it detects every damage of up to 32 bits in a row, and
    misses one in 2^32 other damages. It is no protection against malice, since anyone can compute
    it anew. 500 MB take 0.2 s; SHA-256 takes 0.5 s.
    """
    crc = zlib.crc32(text.encode())
    for name, values in sorted(arrays.items()):
        crc = zlib.crc32(f"{name!r} {values.dtype.name} {values.shape}".encode(), crc)
        crc = zlib.crc32(bytes_of(values), crc)
    return f"{crc:08x}"


def bytes_of(values: Values) -> memoryview:
    """Return the bytes of an array in the format of a file: little-endian, in C order."""
    words = values.reshape(-1).view(f"u{values.itemsize}")
    return words.astype(f"<u{values.itemsize}", copy=False).data


def _document(text: str) -> Json:
    """Return the description in a file's metadata."""
    try:
        document: Json = parse(text)
    except InvalidFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(f"the description is no JSON: {error}") from None
    require(isinstance(document, dict), "the description is no JSON object")
    return document


def _require_sound_header(name: str) -> None:
    """Raise if the header is too long, or has an object with an entry twice."""
    if os.path.exists(name) and not os.path.isdir(name):
        require(os.path.isfile(name), "not an ordinary file")
    with open(name, "rb") as file:
        declared = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
        require(
            size >= 8, f"no safetensors file: {size} bytes, which is less than the size of a header"
        )
        most = min(MOST_HEADER_BYTES, size - 8)
        require(
            declared <= most, f"no safetensors file: a header of {declared} bytes, at most {most}"
        )
        header = file.read(declared)
    try:
        parse(header)
    except InvalidFileError:
        raise
    except (ValueError, RecursionError):
        pass  # no JSON: safetensors raises


def _safetensors() -> ModuleType:
    try:
        import safetensors
    except ImportError as error:
        raise ImportError("files need safetensors: pip install 'invconv[files]'") from error
    return safetensors


def ml_dtypes() -> Any:
    """Return the package that adds bfloat16 to NumPy."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("bfloat16 needs ml_dtypes: pip install 'invconv[files]'") from error
    return ml_dtypes
