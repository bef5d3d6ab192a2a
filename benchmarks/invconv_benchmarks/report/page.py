"""A result as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from invconv_benchmarks.report import tables
from invconv_benchmarks.results.result import Result
from invconv_conformance.pages.templates import Line, Styled, render


def as_page(result: Result, pictures: Mapping[str, Path]) -> str:
    """Return the page, with PNG files by their captions."""
    images = {name: base64.b64encode(path.read_bytes()) for name, path in pictures.items()}
    return render(
        __package__,
        "page.html",
        result=result,
        count=[limit.verdict for limit in result.limits].count,
        pictures=[(caption, data.decode()) for caption, data in images.items()],
        limits=[(s, _lines(s)) for s in tables.limits(result.limits)],
        times=[(s, _lines(s)) for s in tables.times(result.rows)],
        machine=_machine(result),
    )


def _lines(section: tables.Section) -> list[Line]:
    """Return a table's lines, the last cell in the style of its verdict."""
    return [Line((*cells, Styled(last, last))) for *cells, last in section.lines]


def _machine(result: Result) -> list[tuple[str, str]]:
    """Return what the run was made with, by name."""
    environment = result.environment
    return [
        ("processor", f"{environment['cpu']}, {environment['cores']} cores"),
        ("memory", f"{(environment['memory_bytes'] or 0) / 2**30:.0f} GiB"),
        ("GPU", ", ".join(environment["gpus"]) or "none; not yet run on one"),
        ("system", f"{environment['platform']}, Python {environment['python']}"),
        ("load", ", ".join(f"{v} at the {k}" for k, v in result.load.items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in environment["versions"].items())),
        ("BLAS's kernels for", ", ".join(environment["blas"])),
        ("commit", environment["commit"]),
        ("command", result.command),
    ]
