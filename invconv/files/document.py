"""Writing the files that `files.container` reads, each of them read again before it is in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import Array, dtype_name, is_half, to_numpy
from invconv.arrays.validation import require_array
from invconv.files.container import (
    CHECKSUM,
    KEY,
    KINDS,
    MOST_ARRAYS,
    MOST_HEADER_BYTES,
    Stored,
    Values,
    bytes_of,
    checksum,
    ml_dtypes,
    named,
    read_file,
)
from invconv.files.description import Json
from invconv.files.ranges import finite
from invconv.files.whole_files import replacing


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

    Raises
    ------
    ValueError
        If an array holds NaN or inf, or there is too much of it.
    """

    def __init__(self, what: str, description: Json, arrays: Mapping[str, Array]) -> None:
        import json  # importing invconv is the quicker without it

        text = json.dumps(description, separators=(",", ":"))
        if len(arrays) > MOST_ARRAYS or 2 * len(text) > MOST_HEADER_BYTES:
            raise ValueError(
                f"{what}: expected {MOST_ARRAYS} arrays at most, described in "
                f"{MOST_HEADER_BYTES // 2} characters, got {len(arrays)} in {len(text)}"
            )
        self._what, self._text = what, text
        self._arrays = {name: _to_be_written(name, array) for name, array in arrays.items()}

    def write(self, path: str | os.PathLike[str], read: Callable[[Stored], Any]) -> None:
        """Write the file, whole or not at all, and only if its bytes can be read again.

        Parameters
        ----------
        path : str or path-like
        read : callable
            The function that makes something of the file when it is loaded. It is called with the
            new file before that takes the place of an old one.

        Raises
        ------
        ValueError
            If ``read`` refuses the file.
        OSError
            If it cannot be written.
        """
        target = named(path)
        with replacing(target) as part:
            try:
                with part.open("wb") as file:
                    file.writelines(self._bytes())
            except OSError as error:
                text = f"cannot be written: {error.strerror}"
                raise OSError(error.errno, text, target) from None
            try:
                read(read_file(str(part)))
            except InvalidFileError as error:
                raise ValueError(f"{self._what}: cannot be saved: {error}") from None

    def _bytes(self) -> Iterator[bytes | memoryview]:
        """Yield the length of the header, the header, and the arrays, those of wide numbers first.

        So each array begins at a multiple of the size of its numbers. `safetensors.numpy.save_file`
        would do, but it writes the entries of the metadata in an order of chance.
        """
        import json

        metadata = {KEY: self._text, CHECKSUM: checksum(self._text, self._arrays)}
        header: Json = {"__metadata__": metadata}
        arrays = sorted(self._arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
        end = 0
        for name, values in arrays:
            start, end = end, end + values.nbytes
            entry = {"dtype": KINDS[values.dtype.name], "shape": list(values.shape)}
            header[name] = entry | {"data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little")
        yield text
        yield from (bytes_of(values) for _, values in arrays)


def _to_be_written(name: str, array: Any) -> Values:
    """Return an array's values on the host, in C order and in the dtype of the file."""
    require_array(name, array)
    values = to_numpy(array)  # those of half precision in float32
    if not finite(values):
        raise ValueError(f"{name}: expected finite numbers, got NaN or inf")
    kind: Any = values.dtype
    if kind.kind != "f":
        kind = np.int64
    elif is_half(array.dtype, array):
        kind = ml_dtypes().bfloat16 if dtype_name(array.dtype) == "bfloat16" else np.float16
    return np.asarray(values, dtype=kind, order="C")
