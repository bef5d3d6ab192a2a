"""The result file of a comparison: strict JSON of a fixed schema, with a checksum."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from invconv_benchmarks.results import sealed
from invconv_benchmarks.results.sealed import Document

SCHEMA = "invconv-density/1"

write = sealed.write


def read(path: Path) -> Document:
    """Return a comparison's document.

    Raises
    ------
    ValueError
        If it is no result file, is cut off, or was changed after it was written.
    """
    schema = json.loads(files(__package__).joinpath("comparison.schema.json").read_text("utf-8"))
    return sealed.read(path, SCHEMA, schema)
