"""What a run found: a table to look at, JSON, HTML and JUnit to keep."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from rich import box
from rich.table import Table

import invconv
from invconv_conformance.agreement import Agreement
from invconv_conformance.bounds import C_FACTOR
from invconv_conformance.laws import LAWS
from invconv_conformance.libraries import target_of
from invconv_conformance.library import Column
from invconv_conformance.requirements import lacking
from invconv_conformance.result import Result

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
    """

    command: str
    columns: list[Column]
    results: list[Result]
    not_run: list[str]
    agreement: list[Agreement]
    seconds: float


def summaries(run: Run) -> Iterator[Table]:
    """Yield a table a library: how much of its bound the worst case of a law uses up."""
    for name in dict.fromkeys(column.library for column in run.columns):
        columns = [column for column in run.columns if column.library == name]
        table = Table(box=box.SIMPLE_HEAD, title=name, title_justify="left", title_style="bold")
        table.add_column("law", no_wrap=True)
        for column in columns:
            mode = "" if column.mode == "eager" else f" {column.mode}"
            table.add_column(f"{column.device}{mode}\n{column.dtype}", justify="right")
        mine = [r for r in run.results if r.library == name]
        for law in dict.fromkeys(r.law for r in mine):
            rows = [r for r in mine if r.law == law]
            table.add_row(law, *(_cell([r for r in rows if r.column == c]) for c in columns))
        yield table


def _cell(results: list[Result]) -> str:
    bad = sum(r.bad for r in results)
    if bad:
        return f"[red]{bad} fail[/]"
    held = [r for r in results if r.status == "pass"]
    known = len([r for r in results if r.status == "expected"])
    worst = max((r.share for r in held), default=None)
    text = "-" if worst is None else f"{worst:.1%}" if worst else "ok"
    return f"{text} ({known} known)" if known else text


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
