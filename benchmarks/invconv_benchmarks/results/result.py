"""The result of a benchmark, and its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv_benchmarks.measure import environment, spread
from invconv_benchmarks.measure.ceilings import Ceiling
from invconv_benchmarks.results import row, sealed
from invconv_benchmarks.results.fits import Fit
from invconv_benchmarks.results.limits import Verdict
from invconv_benchmarks.results.records import structured
from invconv_benchmarks.results.row import Row
from invconv_benchmarks.results.sealed import Document

SCHEMA = "invconv-benchmark/1"


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes
    ----------
    invconv, date, command : str
    seconds : float
    complete : bool
        False if the run was interrupted: some rows are missing.
    quick : bool
    passes : int
    environment : dict
        From `invconv_benchmarks.measure.environment`.
    load : dict
        Processes that wanted to run at the start and at the end, None if the system does not tell.
    not_run : list of str
        What is absent, and why.
    pools : dict
        By number of threads, what threadpoolctl saw.
    ceilings : list of Ceiling
    rows : list of Row
    exponents : list of Fit
    limits : list of Verdict
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
    pools: dict[str, Any]
    ceilings: list[Ceiling]
    rows: list[Row]
    exponents: list[Fit]
    limits: list[Verdict]

    @property
    def busy(self) -> bool:
        """Whether other processes wanted to run too."""
        return environment.busy(self.load, self.environment["cores"])

    @property
    def most_load(self) -> float:
        """The larger load of start and end."""
        return environment.most_load(self.load)


def as_document(result: Result) -> Document:
    """Return the document of schema ``invconv-benchmark/1``, without its checksum."""
    rows = [row.as_json(r) for r in result.rows]
    return {"schema": SCHEMA} | asdict(result) | {"rows": rows}


def write(path: Path, result: Result) -> None:
    """Write a result with its checksum, at once or not at all."""
    sealed.write(path, as_document(result))


def read(path: Path) -> Result:
    """Return a file's result.

    Raises
    ------
    ValueError
        If it is no result file, is cut off, or was changed after it was written.
    """
    document = sealed.read(path, sealed.schema(__package__, "benchmark.schema.json"))
    rows = [row.nested(values) for values in document["rows"]]
    kept = {f.name: document[f.name] for f in fields(Result)}
    result: Result = structured(Result, kept | {"rows": rows})
    for found in result.rows:
        quantiles = found.p10, found.median, found.p90
        if found.passes and spread.quantiles(found.passes) != quantiles:
            raise CommandError(f"{path}: {found.contender}: the median is not that of its samples")
    return result
