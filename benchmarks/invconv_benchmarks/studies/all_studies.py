"""The studies by their names, as ``python -m invconv benchmark NAME`` takes them."""

from __future__ import annotations

import importlib
from pathlib import Path

from invconv_benchmarks.results.limits import Verdict

Found = tuple[list[Verdict], dict[str, Path]]

STUDIES = {
    "first_solve": "invconv_benchmarks.studies.first_solve",
    "overhead": "invconv_benchmarks.studies.calls",  # beside the suite of this name
    "precision": "invconv_benchmarks.studies.precision",
    "silent_error": "invconv_benchmarks.studies.silent_error.study",
}


def measure(name: str, quick: bool, folder: Path) -> Found:
    """Return a study's verdicts, and its pictures by their captions."""
    found: Found = importlib.import_module(STUDIES[name]).measure(quick, folder)
    return found
