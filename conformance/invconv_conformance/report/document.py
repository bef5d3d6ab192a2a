"""The document of a run: JSON that ``conformance.schema.json`` describes."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
from collections.abc import Iterable, Sequence
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


Document = dict[str, Any]


def document(
    command: str,
    columns: Sequence[Column],
    results: Sequence[Result],
    not_run: list[str],
    agreement: Iterable[Agreement],
    seconds: float,
) -> Document:
    """Return what came out of a run: which command, which columns, what was not run and why."""
    libraries = {column.library: target_of(column).library for column in columns}
    missing = {name: lacking(library.namespace()) for name, library in libraries.items()}
    return {
        "schema": SCHEMA,
        "invconv": invconv.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": command,
        "seconds": round(seconds, 1),
        "c": C_FACTOR,
        "columns": [_column(column) for column in columns],
        "not_run": not_run,
        "lacks": {name: functions for name, functions in missing.items() if functions},
        "laws": {
            law.id: {"definition": law.definition, "source": law.source} for law in LAWS.values()
        },
        "results": [_plain(dataclasses.asdict(r) | {"reproduce": r.reproduce}) for r in results],
        "agreement": [_plain(dataclasses.asdict(a)) for a in agreement],
    }


def _column(column: Column) -> dict[str, str]:
    library = target_of(column).library
    return {**column._asdict(), "title": library.title, "version": library.version}


def _plain(fields: Document) -> Document:
    """Write an infinite number as null: JSON has none."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()
    }


def dumps(document: Document) -> str:
    """Return strict JSON."""
    return json.dumps(document, indent=1, allow_nan=False)
