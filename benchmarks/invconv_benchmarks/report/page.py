"""A result as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from invconv_benchmarks.contenders.plain import CONV2D
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.report import tables
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import Row, grouped
from invconv_conformance.pages.templates import Line, Styled, render

_HEAD = (
    "map", "shape", "", "threads", "library", "what", "median", "p10–p90", "÷ plain", "spread",
    f"÷ {CONV2D}", "spread", "residual", "first", "samples",
)  # fmt: skip


def as_page(result: Result, pictures: Mapping[str, Path]) -> str:
    """Return the page.

    Parameters
    ----------
    result : Result
    pictures : mapping of str to Path
        PNG files by their captions.
    """
    limits = [
        (title, [Line((*cells, Styled(verdict, verdict))) for *cells, verdict in lines])
        for title, lines in tables.limits(result.limits)
    ]
    return render(
        __package__,
        "page.html",
        result=result,
        count=[limit.verdict for limit in result.limits].count,
        pictures=[
            (caption, base64.b64encode(path.read_bytes()).decode())
            for caption, path in pictures.items()
        ],
        limits=limits,
        head=_HEAD,
        suites=list(_suites(result.rows)),
        machine=_machine(result),
    )


def _suites(rows: Sequence[Row]) -> Iterator[tuple[str, list[Line]]]:
    """Yield a title and the lines of each suite; a line begins each group."""
    for suite, groups in groupby(grouped(rows), key=lambda g: g[0].suite):
        lines = [
            Line(_cells(row), kind=f"{'ours ' * (row.role == 'ours')}{'new' * (i == 0)}".strip())
            for group in groups
            for i, row in enumerate(group)
        ]
        yield f"{suite}: {len(lines)} rows", lines


def _cells(row: Row) -> tuple[str, ...]:
    head = (row.map, *row.words, tables.place(row), row.contender)
    if row.p10 is None or row.p90 is None:
        return (*head, row.error, *("",) * (len(_HEAD) - 7))
    return (
        *head,
        tables.milliseconds(row.seconds),
        f"{1e3 * row.p10:.3g}–{1e3 * row.p90:.3g}",
        *_stated(row.ratio),
        *_stated(row.yardstick),
        f"{row.residual:.1e}" if row.residual is not None else "–",
        tables.milliseconds((row.plan or 0) + (row.first or 0)),
        "+".join(str(len(samples)) for samples in row.passes),
    )


def _stated(found: Interval | None) -> tuple[str, str]:
    if found is None:
        return "–", "–"
    return f"{found.value:.3g}", f"{found.low:.3g}–{found.high:.3g}"


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
