"""The result of a benchmark, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from invconv_benchmarks.measure import spread
from invconv_benchmarks.measure.ceilings import Ceiling
from invconv_benchmarks.results import sealed
from invconv_benchmarks.results.fits import Fit
from invconv_benchmarks.results.limits import Verdict
from invconv_benchmarks.results.row import Row
from invconv_benchmarks.results.sealed import Document

SCHEMA = "invconv-benchmark/1"


@dataclass(frozen=True)
class Result:
    """What a run found.

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
        return self.most_load > max(1, int(self.environment["cores"])) + 1

    @property
    def most_load(self) -> float:
        """The larger load of start and end."""
        return max((v for v in self.load.values() if v is not None), default=0.0)

    def to_json(self) -> Document:
        """Return the document of schema ``invconv-benchmark/1``, without its checksum."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        tables = {name: [asdict(x) for x in kept[name]] for name in _RECORDS}
        return {"schema": SCHEMA, **kept, **tables, "rows": [row.to_json() for row in self.rows]}

    @classmethod
    def from_json(cls, document: Document) -> Result:
        """Undo `to_json`."""
        kept = {f.name: document[f.name] for f in fields(cls)}
        records = {name: [kind(**x) for x in kept[name]] for name, kind in _RECORDS.items()}
        return cls(**kept | records | {"rows": [Row.from_json(row) for row in kept["rows"]]})


_RECORDS: dict[str, type] = {"ceilings": Ceiling, "exponents": Fit, "limits": Verdict}


def write(path: Path, result: Result) -> None:
    """Write a result with its checksum, at once or not at all."""
    sealed.write(path, result.to_json())


def read(path: Path) -> Result:
    """Return a file's result.

    Raises
    ------
    ValueError
        If it is no result file, is cut off, or was changed after it was written.
    """
    schema = json.loads(files(__package__).joinpath("benchmark.schema.json").read_text("utf-8"))
    result = Result.from_json(sealed.read(path, SCHEMA, schema))
    for row in result.rows:
        if row.passes and spread.quantiles(row.passes) != (row.p10, row.median, row.p90):
            raise ValueError(f"{path}: {row.contender}: the median is not that of its samples")
    return result
