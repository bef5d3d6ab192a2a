"""A run, and the document of it: JSON that ``conformance.schema.json`` describes."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
from dataclasses import dataclass
from typing import Any

import invconv
from invconv_conformance.laws.table import LAWS
from invconv_conformance.libraries.library import Column
from invconv_conformance.libraries.requirements import lacking
from invconv_conformance.libraries.table import target_of
from invconv_conformance.report.agreement import Agreement
from invconv_conformance.run.result import Result
from invconv_conformance.truth.bounds import C_FACTOR

SCHEMA = "invconv-conformance/1"


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes
    ----------
    command : str
        The words that were typed.
    columns : list of Column
    results : list of Result
    not_run : list of str
        What is absent, and why.
    agreement : list of Agreement
    seconds : float
    """

    command: str
    columns: list[Column]
    results: list[Result]
    not_run: list[str]
    agreement: list[Agreement]
    seconds: float

    @property
    def lacks(self) -> dict[str, list[str]]:
        """Functions that the core needs, of each library that has not all of them."""
        libraries = {column.library: target_of(column).library for column in self.columns}
        missing = {name: lacking(library.namespace()) for name, library in libraries.items()}
        return {name: functions for name, functions in missing.items() if functions}


def as_json(run: Run) -> dict[str, Any]:
    """Return the run as a document."""
    return {
        "schema": SCHEMA,
        "invconv": invconv.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": run.command,
        "seconds": round(run.seconds, 1),
        "c": C_FACTOR,
        "columns": [_column(column) for column in run.columns],
        "not_run": run.not_run,
        "lacks": run.lacks,
        "laws": {
            law.id: {"definition": law.definition, "source": law.source} for law in LAWS.values()
        },
        "results": [
            _plain(dataclasses.asdict(r) | {"reproduce": r.reproduce}) for r in run.results
        ],
        "agreement": [_plain(dataclasses.asdict(a)) for a in run.agreement],
    }


def _column(column: Column) -> dict[str, str]:
    library = target_of(column).library
    return {**column._asdict(), "title": library.title, "version": library.version}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Write an infinite number as null: JSON has none."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()
    }


def dumps(document: dict[str, Any]) -> str:
    """Return strict JSON."""
    return json.dumps(document, indent=1, allow_nan=False)
