"""A result as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.table import Table

from invconv_benchmarks.contenders.plain import CONV2D
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.results.limits import Verdict
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import TITLES, Row, grouped

_COLORS = {"pass": "green", "miss": "red", "unclear": "yellow"}


def tables(result: Result) -> Iterator[Table]:
    """Yield all tables of a result."""
    rows = [r for r in result.rows if not r.axis]
    for suite in dict.fromkeys(r.suite for r in rows):
        ours = [r for r in rows if r.suite == suite and r.role == "ours"]
        for does in dict.fromkeys(r.does for r in ours):
            yield _ours(f"{suite}: {does}", [r for r in ours if r.does == does])
    peers = [g for g in grouped(rows) if any(r.role == "peer" for r in g)]
    if peers:
        yield _peers(peers)
    for title, lines in limits(result.limits):
        shown = new(title, ("row",), ("limit", "value", "spread", "verdict"))
        for *cells, verdict in lines:
            shown.add_row(*cells, f"[{_COLORS[verdict]}]{verdict}[/]")
        yield shown


def new(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    """Return an empty table."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def place(row: Row) -> str:
    """Return a library's title, and its device and mode where those are not the usual ones."""
    title = str(TITLES.get(row.library, row.library))
    usual = row.device == "cpu" and row.mode in ("eager", "jit")
    return title if usual else f"{title} {row.device} {row.mode}"


def _ours(title: str, rows: Sequence[Row]) -> Table:
    """Return a line a row: milliseconds, and ratios with their spread."""
    columns = (
        ("ms", "÷ plain", f"÷ {CONV2D}") if any(r.yardstick for r in rows) else ("ms", "ratio")
    )
    table, before = new(title, ("map", "shape", "", "thr", "library"), columns), None
    for row in rows:
        head = (row.map, *row.words)
        numbers = ("failed", "-", "-")
        if row.passes:
            numbers = (f"{1e3 * row.seconds:.3g}", ratio(row.ratio), ratio(row.yardstick))
        shown = ("", "", "", "") if head == before else head
        table.add_row(*shown, place(row), *numbers[: len(columns)])
        before = head
    return table


def milliseconds(seconds: float) -> str:
    """Return three digits."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def ratio(found: Interval | None) -> str:
    """Return a ratio with the larger side of the interval that the report states."""
    if found is None:
        return "-"
    return f"{found.value:.2f}±{max(found.high - found.value, found.value - found.low):.1g}"


def _peers(groups: list[list[Row]]) -> Table:
    """Return the alternatives, beside our row that does the same in the same library."""
    table = new("what else there is", ("what", "instead", "in"), ("time", "x ours", f"÷ {CONV2D}"))
    for group in groups:
        for row in group:
            if row.role != "peer":
                continue
            cells: tuple[str, ...] = (row.error.rpartition(": ")[2], "", "")
            if row.passes:
                mine = [
                    r for r in group if (r.role, r.does, r.place) == ("ours", row.does, row.place)
                ]
                times = [f"{row.seconds / r.seconds:.3g}" for r in mine if r.passes]
                common = f"{row.yardstick.value:.3g}" if row.yardstick else "-"
                cells = (milliseconds(row.seconds), *(times or ["-"]), common)
            what = f"{row.map} {row.does} {' '.join(row.words[:2])}"
            table.add_row(what, row.contender, place(row), *cells)
    return table


def limits(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield each limit's title and lines: what, limit, value, spread, verdict."""
    for limit, some in groupby(verdicts, key=lambda v: v.limit):
        lines = list[tuple[str, ...]]()
        for v in some:
            spread = "" if v.low == v.high else f"{v.low:.3g}-{v.high:.3g}"
            lines.append((v.what, f"{v.bound:g}", f"{v.value:.3g}", spread, v.verdict))
        passed = sum(line[-1] == "pass" for line in lines)
        yield f"limit: {limit} ({passed} of {len(lines)} pass)", lines
