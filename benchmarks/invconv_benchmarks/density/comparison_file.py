"""The result file of a comparison: strict JSON of a fixed schema, with a checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invconv_benchmarks import result

SCHEMA = "invconv-density/1"
Document = dict[str, Any]

write = result.write


def read(path: Path) -> Document:
    """Return a comparison's document.

    Raises
    ------
    ValueError
        If it is no result file, is cut off, or was changed after it was written.
    """
    return result.read_sealed(path, SCHEMA, "density/comparison.schema.json")
