"""The files behind `save` and `load`: safetensors files with a description in JSON.

A file (https://github.com/huggingface/safetensors) is a header of JSON, then arrays, little-endian
in C order. Its metadata has two entries: ``invconv``, JSON again, an object with a "schema", and
``invconv-crc32``, a checksum, which files of 0.2.0 lack. safetensors checks the sizes and offsets
against the length of the file; this module checks the checksum, dtypes, and numbers for NaN and
inf. It reads a file that it has written, before the file takes its place.
"""

import errno
import importlib
import os
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import (
    Array,
    callers_level,
    dtype_name,
    is_half,
    namespace,
    ops_of,
    to_numpy,
)
from invconv.arrays.validation import require_array

_KEY, _CHECKSUM = "invconv", "invconv-crc32"
_MOST_HEADER_BYTES = 2**24
_MOST_ARRAYS = 2**14
_REAL = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_INTEGRAL = "I64"
_KINDS = _REAL | {"int64": _INTEGRAL}  # safetensors' names of dtypes
Values = np.ndarray[Any, Any]
Json = dict[str, Any]


def named(path: Any) -> str:
    """Return a path as text, or raise if it is no path."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(
            "path: expected the name of a file, as text or a pathlib.Path, got "
            f"{type(path).__name__}"
        )
    name = os.fsdecode(path)
    if not name or "\0" in name or name.endswith(os.sep):
        raise ValueError(f"path: expected the name of a file, got {name!r}")
    return name


@contextmanager
def reading(path: str | os.PathLike[str]) -> "Iterator[Stored]":
    """Yield the arrays of a file; an InvalidFileError in the block begins with the file's name."""
    name = named(path)
    try:
        yield _read_file(name)
    except InvalidFileError as error:
        raise InvalidFileError(f"{name}: {error!s:.500}") from None


def _read_file(name: str) -> "Stored":
    safetensors = _needed("safetensors", "files need")
    # to open a pipe would wait for ever
    require(stat.S_ISREG(os.stat(name).st_mode), "not an ordinary file")
    try:
        with safetensors.safe_open(name, framework="np", backend="pread") as file:
            with open(name, "rb") as header:  # of a repeated entry safetensors takes the last
                n, most = int.from_bytes(header.read(8), "little"), _MOST_HEADER_BYTES
                require(n <= most, f"no safetensors file: a header of {n} bytes, at most {most}")
                parse(header.read(n))
            return Stored(name, file)
    except safetensors.SafetensorError as error:
        raise InvalidFileError(f"no whole safetensors file: {error!s:.500}") from None


def parse(text: str | bytes) -> Any:
    """Return the value of a JSON text in which no object has an entry twice."""
    import json  # here, so that importing invconv is quicker

    def once(pairs: list[tuple[str, Any]]) -> Json:
        entries: Json = {}
        for name, value in pairs:
            require(name not in entries, f"an object has the entry {name!r:.80} twice")
            entries[name] = value
        return entries

    try:
        return json.loads(text, object_pairs_hook=once)
    except InvalidFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(f"the description is no JSON: {error}") from None


def require(holds: bool, message: str) -> None:
    """Raise InvalidFileError unless a condition holds."""
    if not holds:
        raise InvalidFileError(message)


class Stored(dict[str, Values]):
    """The arrays of a file, bfloat16 in float32; their one real ``dtype``, and a ``document``."""

    def __init__(self, name: str, file: Any) -> None:
        names = file.keys()
        require(len(names) <= _MOST_ARRAYS, f"{len(names)} arrays are more than {_MOST_ARRAYS}")
        kinds = {name: file.get_slice(name).get_dtype() for name in names}
        for array, kind in kinds.items():
            known = f"expected one of {', '.join(_REAL.values())} or {_INTEGRAL}"
            require(kind in _KINDS.values(), f"{array!r} is {kind}; {known}")
        real = sorted(set(kinds.values()) - {_INTEGRAL})
        if "BF16" in real:
            _needed("ml_dtypes", "bfloat16 needs")  # makes the dtype known to NumPy
        metadata: dict[str, str] = file.metadata() or {}
        text = metadata.get(_KEY, "")
        require(_KEY in metadata, f"its metadata has no entry {_KEY!r}, as invconv.save writes")
        super().__init__({name: _array(file, name) for name in names})
        stored = metadata.get(_CHECKSUM)
        intact = stored is None or stored == _checksum(text, self)
        require(intact, "damaged: its contents do not fit the checksum they were written with")
        require(
            len(real) == 1,
            f"expected arrays of one real dtype, got {real or 'none'}; cast them to one dtype "
            "before they are saved",
        )
        self.name, self.dtype = name, next(n for n, kind in _REAL.items() if kind in real)
        for array, values in self.items():
            self[array] = values.astype(np.float32) if kinds[array] == "BF16" else values
            require(_finite(self[array]), f"{array!r} holds NaN or inf")
        self.document: Json = parse(text)
        require(isinstance(self.document, dict), "the description is no JSON object")


def _array(file: Any, name: str) -> Any:
    try:
        return file.get_tensor(name)
    except ValueError as error:  # a shape that NumPy does not allow
        raise InvalidFileError(f"{name!r}: {error}") from None


def write(
    path: str | os.PathLike[str],
    description: Json,
    arrays: Mapping[str, Array],
    read: Callable[[Stored], Any],
) -> None:
    """Write a file, whole or not at all; raise ValueError if ``read`` refuses what was written."""
    contents = list(_contents(description, {n: _to_be_written(n, a) for n, a in arrays.items()}))
    target = named(path)
    with replacing(target) as part:
        try:
            with part.open("wb") as file:
                file.writelines(contents)
        except OSError as error:
            text = f"cannot be written: {error.strerror}"
            raise OSError(error.errno, text, target) from None
        try:
            read(_read_file(str(part)))
        except InvalidFileError as error:
            raise ValueError(f"model: cannot be saved: {error}") from None


def _contents(description: Json, written: Mapping[str, Values]) -> Iterator[bytes | memoryview]:
    """Yield the length of the header, the header, and the arrays, wide dtypes first.

    So each array begins at a multiple of the size of its numbers. `safetensors.numpy.save_file`
    is not used, since it writes the entries of the metadata in random order.
    """
    import json  # here, so that importing invconv is quicker

    text = json.dumps(description, separators=(",", ":"))
    header: Json = {"__metadata__": {_KEY: text, _CHECKSUM: _checksum(text, written)}}
    arrays = sorted(written.items(), key=lambda item: (-item[1].itemsize, item[0]))
    end = 0
    for name, values in arrays:
        start, end = end, end + values.nbytes
        entry = {"dtype": _KINDS[values.dtype.name], "shape": list(values.shape)}
        header[name] = entry | {"data_offsets": [start, end]}
    line = json.dumps(header, separators=(",", ":")).encode()
    line += b" " * (-len(line) % 8)
    yield len(line).to_bytes(8, "little")
    yield line
    yield from (_bytes_of(values) for _, values in arrays)


def _to_be_written(name: str, array: Any) -> Values:
    """Return an array's values on the host, in C order and in the dtype of the file."""
    require_array(name, array, computed=False)
    values = to_numpy(array)  # half types come as float32
    if not _finite(values):
        raise ValueError(f"{name}: expected finite numbers, got NaN or inf")
    kind: Any = values.dtype
    if kind.kind != "f":
        kind = np.int64
        if (values.astype(kind) != values).any():
            raise ValueError(f"{name}: expected integers within int64, got {values.max()}")
    elif is_half(array.dtype, array):
        kind = np.float16
        if dtype_name(array.dtype) == "bfloat16":
            kind = _needed("ml_dtypes", "bfloat16 needs").bfloat16
    return np.asarray(values, dtype=kind, order="C")


def _finite(values: Values) -> bool:
    """Tell whether all values are finite: NaN passes through minimum and maximum."""
    return values.size == 0 or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _checksum(text: str, arrays: Mapping[str, Values]) -> str:
    """Return the CRC-32 of a description and of arrays in the dtypes of a file, as 8 digits.

    The checksum guards against accidents: it detects every damage of up to 32 bits in a row, and
    misses one in 2^32 other damages. 500 MB take 0.2 s; SHA-256 takes 0.5 s.
    """
    crc = zlib.crc32(text.encode())
    for name, values in sorted(arrays.items()):
        crc = zlib.crc32(f"{name!r} {values.dtype.name} {values.shape}".encode(), crc)
        crc = zlib.crc32(_bytes_of(values), crc)
    return f"{crc:08x}"


def _bytes_of(values: Values) -> memoryview:
    """Return the bytes of an array in the format of a file: little-endian, in C order."""
    words = values.reshape(-1).view(f"u{values.itemsize}")
    return words.astype(f"<u{values.itemsize}", copy=False).data


def judge_range(arrays: Mapping[str, Values], like: Array, argument: str) -> None:
    """Raise if a number is too large for the dtype of ``like``; warn if one becomes zero.

    ``arrays`` are NumPy's; integers always pass. ``argument`` is the user's name for ``like``.
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
        lost = np.abs(array[(array != 0) & (np.abs(array) <= rounded_off)])
        if lost.size:
            warnings.warn(
                f"{argument}: {lost.size} of the {array.size} numbers of {name}, up to "
                f"{lost.max():.3g}, are zero in {dtype}, whose smallest is {least:.3g}",
                stacklevel=callers_level(),
            )


def _needed(package: str, sentence: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{sentence} {package}: pip install 'invconv[files]'") from error


if TYPE_CHECKING:
    from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> "Iterator[Path]":
    """Yield a new file beside ``path``, which takes its place when the block ends without error.

    A process killed at any moment, a full disk or a power cut leave the old file as it was. A link
    stays a link, and a file that is there already keeps its permissions.
    """
    from pathlib import Path  # here, so that importing invconv is quicker

    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(target.parent))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "not an ordinary file, so it cannot be replaced", str(path))
    part = target.with_name(f".{os.urandom(8).hex()}.part")
    try:
        part.touch(exist_ok=False)
        mode = stat.S_IMODE(part.stat().st_mode)
        yield part
        part.chmod(mode)  # the writer may have put a file there that only its owner can read
        if target.exists():
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        _sync(part, os.O_RDWR)
        os.replace(part, target)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _sync(target.parent, os.O_RDONLY)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: "Path", text: str) -> None:
    """Write text; a file that is written in part never replaces a good one."""
    with replacing(path) as part:
        # names of files that are not UTF-8 come with lone surrogates
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def _sync(path: "Path", flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
