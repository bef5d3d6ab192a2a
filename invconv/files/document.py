"""Writing the files that `files.container` reads; a file is read back before it is put in place."""

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
    """The contents of a file: a description, and arrays on the host.

    Parameters
    ----------
    name : str
        The name of the saved argument, for messages.
    description : dict
        With an entry "schema".
    arrays : mapping of str to array
        Arrays of any library.

    Raises
    ------
    ValueError
        If an array holds NaN or inf, or there are too many arrays, or the description is too long.
    """

    def __init__(self, name: str, description: Json, arrays: Mapping[str, Array]) -> None:
        import json  # here, so that importing invconv is quicker

        text = json.dumps(description, separators=(",", ":"))
        if len(arrays) > MOST_ARRAYS or 2 * len(text) > MOST_HEADER_BYTES:
            raise ValueError(
                f"{name}: expected {MOST_ARRAYS} arrays at most, described in "
                f"{MOST_HEADER_BYTES // 2} characters, got {len(arrays)} in {len(text)}"
            )
        self._name, self._text = name, text
        self._arrays = {n: _to_be_written(n, array) for n, array in arrays.items()}

    def write(self, path: str | os.PathLike[str], read: Callable[[Stored], Any]) -> None:
        """Write the file, whole or not at all, and only if its bytes can be read again.

        Parameters
        ----------
        path : str or path-like
        read : callable
            The function that loads the file. It is called with the new file before that replaces an
            old one.

        Raises
        ------
        ValueError
            If ``read`` refuses the file.
        OSError
            If the file cannot be written.
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
                raise ValueError(f"{self._name}: cannot be saved: {error}") from None

    def _bytes(self) -> Iterator[bytes | memoryview]:
        """Yield the length of the header, the header, and the arrays, wide dtypes first.

        So each array begins at a multiple of the size of its numbers. `safetensors.numpy.save_file`
        is not used, since it writes the entries of the metadata in random order.
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
    values = to_numpy(array)  # half types come as float32
    if not finite(values):
        raise ValueError(f"{name}: expected finite numbers, got NaN or inf")
    kind: Any = values.dtype
    if kind.kind != "f":
        kind = np.int64
    elif is_half(array.dtype, array):
        kind = ml_dtypes().bfloat16 if dtype_name(array.dtype) == "bfloat16" else np.float16
    return np.asarray(values, dtype=kind, order="C")
