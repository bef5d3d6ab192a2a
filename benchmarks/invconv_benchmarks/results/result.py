"""The result of a benchmark, and its file."""

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from invconv_benchmarks.measure import environment
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.results import sealed
from invconv_benchmarks.results.limits import Verdict
from invconv_benchmarks.results.row import Row

SCHEMA = "invconv-benchmark/2"


@dataclass(frozen=True)
class Result:
    """The result of a run: with which command and machine, and what was found."""

    invconv: str
    date: str
    command: str
    seconds: float
    complete: bool  # else it was interrupted, and some rows are missing
    quick: bool
    passes: int
    environment: dict[str, Any]
    load: dict[str, float | None]  # the processes that wanted to run at the start and at the end
    not_run: list[str]  # what is absent, and why
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
    """Return a file's result; a file that is none, was changed or is cut off is refused."""
    schema = files(__package__).joinpath("benchmark.schema.json").read_text("utf-8")
    document = sealed.read(path, SCHEMA, json.loads(schema))
    rows = [Row(**row | {"shape": tuple(row["shape"])}) for row in document["rows"]]
    for row in rows:
        for name in ("ratio", "yardstick"):
            if (interval := getattr(row, name)) is not None:
                setattr(row, name, Interval(**interval))
    fields = {n: v for n, v in document.items() if n not in ("schema", "checksum")}
    limits = [Verdict(**limit) for limit in document["limits"]]
    return Result(**fields | {"rows": rows, "limits": limits})
