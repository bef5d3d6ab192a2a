"""A result as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from invconv_benchmarks.contenders.plain import CONV2D
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.report import tables
from invconv_benchmarks.report.tables import Section
from invconv_benchmarks.results import fits
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import Row, grouped
from invconv_conformance.pages.templates import Line, Styled, render

_POOL = ("internal_api", "version", "architecture", "num_threads")
_HEAD = (
    "map", "shape", "", "threads", "library", "what", "median", "p10–p90", "÷ plain", "spread",
    f"÷ {CONV2D}", "spread", "roofline", "memory", "residual", "first", "samples",
)  # fmt: skip


def as_page(result: Result, pictures: Mapping[str, Path]) -> str:
    """Return the page.

    Parameters
    ----------
    result : Result
    pictures : mapping of str to Path
        PNG files by their captions.
    """
    verdicts = [limit.verdict for limit in result.limits]
    return render(
        __package__,
        "page.html",
        result=result,
        count=verdicts.count,
        pictures=[
            (caption, base64.b64encode(path.read_bytes()).decode())
            for caption, path in pictures.items()
        ],
        limits=[(limit.title, _lines(limit)) for limit in tables.limits(result.limits)],
        exponents=[Line(cells) for cells in tables.exponents(result.exponents).rows],
        unstated=fits.unstated(result.rows),
        head=_HEAD,
        suites=list(_suites(result.rows)),
        machine=_machine(result),
    )


def _lines(section: Section) -> list[Line]:
    """Return a table's lines, the last cell in the style of its verdict."""
    return [Line((*cells, Styled(last, last))) for *cells, last in section.rows]


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
    if not row.passes:
        return (*head, row.error, *("",) * (len(_HEAD) - 7))
    assert row.p10 is not None
    assert row.p90 is not None
    return (
        *head,
        tables.milliseconds(row.seconds),
        f"{1e3 * row.p10:.3g}–{1e3 * row.p90:.3g}",
        *_stated(row.ratio),
        *_stated(row.yardstick),
        f"{row.roofline:.0%}" if row.roofline is not None else "–",
        tables.memory(row).replace("-", "–"),
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
    ceilings = (
        f"{c.library} {c.device} {c.dtype}, {c.threads} thr: "
        f"{c.gemm_flops / 1e9:.0f} GFLOP/s, {c.copy_bytes / 1e9:.1f} GB/s"
        for c in result.ceilings
    )
    pools = (
        f"{threads} thr: "
        + ", ".join(" ".join(str(p[k]) for k in _POOL if p.get(k) is not None) for p in found)
        for threads, found in result.pools.items()
    )
    return [
        ("processor", f"{environment['cpu']}, {environment['cores']} cores"),
        ("memory", f"{(environment['memory_bytes'] or 0) / 2**30:.0f} GiB"),
        ("GPU", ", ".join(environment["gpus"]) or "none; not yet run on one"),
        ("system", f"{environment['platform']}, Python {environment['python']}"),
        ("load", ", ".join(f"{v} at the {k}" for k, v in result.load.items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in environment["versions"].items())),
        ("commit", environment["commit"]),
        ("command", result.command),
        ("ceilings", "; ".join(ceilings)),
        ("thread pools", "; ".join(pools)),
    ]
