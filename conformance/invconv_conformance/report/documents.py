"""What a run found, and its documents: JSON and JUnit."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

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
    """What a run found.

    Attributes
    ----------
    command : str
        What was typed.
    columns : list of Column
    results : list of Result
    not_run : list of str
        What is absent, and why.
    agreement : list of Agreement
    seconds : float
    peak : int
        The most bytes of memory that a process had, 0 where that is not known.
    """

    command: str
    columns: list[Column]
    results: list[Result]
    not_run: list[str]
    agreement: list[Agreement]
    seconds: float
    peak: int = 0


def as_json(run: Run) -> dict[str, Any]:
    """Return the run as a JSON document, which ``conformance.schema.json`` describes."""
    libraries = {column.library: target_of(column).library for column in run.columns}
    return {
        "schema": SCHEMA,
        "invconv": invconv.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": run.command,
        "seconds": round(run.seconds, 1),
        "c": C_FACTOR,
        "columns": [
            {
                **column._asdict(),
                "title": libraries[column.library].title,
                "version": libraries[column.library].version,
            }
            for column in run.columns
        ],
        "not_run": run.not_run,
        "lacks": {
            name: missing
            for name, library in libraries.items()
            if (missing := lacking(library.namespace()))
        },
        "laws": {
            law.id: {"definition": law.definition, "source": law.source} for law in LAWS.values()
        },
        "results": [
            _plain(dataclasses.asdict(r) | {"reproduce": r.reproduce}) for r in run.results
        ],
        "agreement": [_plain(dataclasses.asdict(a)) for a in run.agreement],
    }


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Write an infinite number as null: JSON has none."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()
    }


def as_junit(results: Iterable[Result]) -> ElementTree.Element:
    """Return the run as a JUnit document, a test case a law and case."""
    suites = ElementTree.Element("testsuites")
    ran = [r for r in results if r.status != "not applicable"]
    for column in dict.fromkeys(r.column for r in ran):
        mine = [r for r in ran if r.column == column]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name="-".join(column),
            tests=str(len(mine)),
            failures=str(sum(r.status == "fail" for r in mine)),
            errors=str(sum(r.status == "error" for r in mine)),
            skipped=str(sum(r.status == "expected" for r in mine)),
            time=f"{sum(r.seconds for r in mine):.3f}",
        )
        for r in mine:
            case = ElementTree.SubElement(
                suite, "testcase", classname=r.law, name=r.case, time=f"{r.seconds:.4f}"
            )
            if r.bad:
                tag = "failure" if r.status == "fail" else "error"
                message = f"{r.what}: error {r.error:.3g}, bound {r.bound:.3g}"
                ElementTree.SubElement(case, tag, message=message).text = r.reproduce
            elif r.status == "expected":
                ElementTree.SubElement(case, "skipped", message=f"expected to fail: {r.reason}")
    return suites


def dumps(document: dict[str, Any]) -> str:
    """Return strict JSON."""
    return json.dumps(document, indent=1, allow_nan=False)
