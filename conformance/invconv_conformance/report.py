"""What a run found: a table to look at, JSON and JUnit to keep."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich import box
from rich.table import Table

import invconv
from invconv_conformance.bounds import C_FACTOR
from invconv_conformance.laws import LAWS
from invconv_conformance.libraries import LIBRARIES
from invconv_conformance.runner import Result

SCHEMA = "invconv-conformance/1"


def columns(results: Iterable[Result]) -> list[tuple[str, str, str]]:
    """Return the (library, device, dtype) of the results, in their order."""
    return list(dict.fromkeys((r.library, r.device, r.dtype) for r in results))


def summaries(results: list[Result]) -> Iterator[Table]:
    """Yield a table a library: how much of its bound the worst case of a law uses up."""
    for name in dict.fromkeys(r.library for r in results):
        mine = [r for r in results if r.library == name]
        table = Table(box=box.SIMPLE_HEAD, title=name, title_justify="left", title_style="bold")
        table.add_column("law", no_wrap=True)
        for _, device, dtype in columns(mine):
            table.add_column(f"{device}\n{dtype}", justify="right")
        for law in dict.fromkeys(r.law for r in mine):
            rows = [r for r in mine if r.law == law]
            table.add_row(law, *(_cell(rows, column) for column in columns(mine)))
        yield table


def _cell(results: list[Result], column: tuple[str, str, str]) -> str:
    mine = [r for r in results if (r.library, r.device, r.dtype) == column]
    bad = sum(r.status != "pass" for r in mine)
    if bad:
        return f"[red]{bad} fail[/]"
    worst = max(r.share for r in mine)
    return f"{worst:.1%}" if worst else "ok"


def as_json(results: list[Result], absent: list[str]) -> dict[str, Any]:
    """Return the run as a JSON document of schema `SCHEMA`."""
    versions = {lib.name: lib.version for lib in LIBRARIES if lib.absent() is None}
    return {
        "schema": SCHEMA,
        "invconv": invconv.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "not_run": absent,
        "c": C_FACTOR,
        "laws": {
            law.id: {"definition": law.definition, "source": law.source} for law in LAWS.values()
        },
        "results": [_plain(dataclasses.asdict(r)) for r in results],
    }


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Write an infinite number as null: JSON has none."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()
    }


def as_junit(results: list[Result]) -> ElementTree.Element:
    """Return the run as a JUnit document, a test case a law and case."""
    suites = ElementTree.Element("testsuites")
    for column in columns(results):
        mine = [r for r in results if (r.library, r.device, r.dtype) == column]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name="-".join(column),
            tests=str(len(mine)),
            failures=str(sum(r.status == "fail" for r in mine)),
            errors=str(sum(r.status == "error" for r in mine)),
            time=f"{sum(r.seconds for r in mine):.3f}",
        )
        for r in mine:
            case = ElementTree.SubElement(
                suite, "testcase", classname=r.law, name=r.case, time=f"{r.seconds:.4f}"
            )
            if r.status != "pass":
                tag = "failure" if r.status == "fail" else "error"
                message = f"{r.what}: error {r.error:.3g}, bound {r.bound:.3g}"
                ElementTree.SubElement(case, tag, message=message).text = r.reproduce
    return suites


def write(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def dumps(document: dict[str, Any]) -> str:
    """Return strict JSON."""
    return json.dumps(document, indent=1, allow_nan=False)
