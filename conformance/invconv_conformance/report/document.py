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
from invconv_conformance.run.result import Result
from invconv_conformance.truth.bounds import C_FACTOR

Document = dict[str, Any]


def document(
    command: str,
    columns: Sequence[Column],
    results: Sequence[Result],
    not_run: list[str],
    agreement: Iterable[Document],
    seconds: float,
) -> Document:
    """Return what came out of a run: which command, which columns, what was not run and why."""
    libraries = {column.library: target_of(column).library for column in columns}
    missing = {name: lacking(library.namespace()) for name, library in libraries.items()}
    return {
        "schema": "invconv-conformance/1",
        "invconv": invconv.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": command,
        "seconds": round(seconds, 1),
        "c": C_FACTOR,
        "columns": [
            c._asdict() | {"title": library.title, "version": library.version}
            for c in columns
            for library in [libraries[c.library]]
        ],
        "not_run": not_run,
        "lacks": {name: functions for name, functions in missing.items() if functions},
        "laws": {
            name: {"definition": x.definition, "source": x.source} for name, x in LAWS.items()
        },
        "results": [_plain(dataclasses.asdict(r) | {"reproduce": r.reproduce}) for r in results],
        "agreement": list(map(_plain, agreement)),
    }


def _plain(fields: Document) -> Document:
    """Write an infinite number as null: JSON has none."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()
    }


def dumps(document: Document) -> str:
    """Return strict JSON."""
    return json.dumps(document, indent=1, allow_nan=False)
