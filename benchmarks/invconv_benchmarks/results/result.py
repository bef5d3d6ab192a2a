"""The result of a benchmark, and its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from invconv_benchmarks.measure import environment
from invconv_benchmarks.results import sealed
from invconv_benchmarks.results.limits import Verdict
from invconv_benchmarks.results.row import Row

SCHEMA = "invconv-benchmark/2"


@dataclass(frozen=True)
class Result:
    """The result of a run: with which command and machine, and what was found.

    ``complete`` is False if the run was interrupted, so that some rows are missing. ``load`` has
    the processes that wanted to run at the start and at the end, ``not_run`` what is absent and
    why.
    """

    invconv: str
    date: str
    command: str
    seconds: float
    complete: bool
    quick: bool
    passes: int
    environment: dict[str, Any]
    load: dict[str, float | None]
    not_run: list[str]
    rows: list[Row]
    limits: list[Verdict]

    @property
    def busy(self) -> bool:
        """Whether other processes wanted to run too."""
        return environment.busy(self.load, self.environment["cores"])


def write(path: Path, result: Result) -> None:
    """Write a result with its checksum, at once or not at all."""
    sealed.write(path, {"schema": SCHEMA} | asdict(result))


def read(path: Path) -> Result:
    """Return a file's result.

    Raises
    ------
    ValueError
        If it is no result file, is cut off, or was changed after it was written.
    """
    return sealed.load(path, Result, sealed.schema(__package__, "benchmark.schema.json"))
