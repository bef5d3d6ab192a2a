"""The tables of a result, for a terminal and for a page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from invconv_benchmarks.measure.timing import Interval
from invconv_benchmarks.results.result import TITLES, Row, Verdict, grouped
from invconv_benchmarks.suites import CONV2D

UNITS = (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0))
_COLORS = {"pass": "green", "miss": "red", "unclear": "yellow"}


def new(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    """Return an empty table."""
    style: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "show_edge": False}
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), **style)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    return [lines[0], "|---" * len(heads) + "|", *lines[1:]]


def duration(seconds: float) -> str:
    """Return a time in two digits and a unit.

    >>> duration(0.0123), duration(100)
    ('12 ms', '1.7 min')
    """
    unit, length = next((u for u in reversed(UNITS) if seconds >= u[1]), UNITS[0])
    return f"{float(f'{seconds / length:.2g}'):g} {unit}"


@dataclass(frozen=True)
class Section:
    """A titled table: heads of words, heads of numbers, and cells; the last may be a verdict."""

    title: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    lines: Sequence[tuple[str, ...]]

    def table(self) -> Table:
        """Return it for a terminal, with verdicts in colour."""
        shown = new(self.title, self.left, self.right)
        for *cells, last in self.lines:
            color = _COLORS.get(last)
            shown.add_row(*map(escape, cells), f"[{color}]{last}[/]" if color else escape(last))
        return shown


def limits(verdicts: Sequence[Verdict]) -> Iterator[Section]:
    """Yield a table for each limit, with how many rows keep it."""
    for limit in dict.fromkeys(v.limit for v in verdicts):
        lines = list[tuple[str, ...]]()
        for v in (v for v in verdicts if v.limit == limit):
            spread = "" if v.low == v.high else f"{v.low:.3g}-{v.high:.3g}"
            lines.append((v.what, f"{v.bound:g}", f"{v.value:.3g}", spread, v.verdict))
        passed = sum(line[-1] == "pass" for line in lines)
        title = f"limit: {limit} ({passed} of {len(lines)} pass)"
        yield Section(title, ("row",), ("limit", "value", "spread", "verdict"), lines)


def times(rows: Sequence[Row]) -> Iterator[Section]:
    """Yield a table for each call that a suite times, with a line per row, and one of the peers."""
    for suite in dict.fromkeys(r.suite for r in rows):
        ours = [r for r in rows if r.suite == suite and r.role == "ours"]
        for does in dict.fromkeys(r.does for r in ours):
            some = [r for r in ours if r.does == does]
            columns: tuple[str, ...] = ("ms", "ratio")
            if any(r.yardstick for r in some):
                columns = ("ms", "÷ plain", _common(suite))
            lines = [(r.map, *r.words, place(r), *_numbers(r)[: len(columns)]) for r in some]
            heads = ("map", "shape", "", "thr", "library")
            yield Section(f"{suite}: {does}", heads, columns, lines)
    peers = [_peer(r, group) for group in grouped(rows) for r in group if r.role == "peer"]
    if peers:
        columns = ("ms", "x ours", _common(rows[0].suite))
        yield Section("what else there is", ("what", "instead", "in"), columns, peers)


def _common(suite: str) -> str:
    """Return the head of the column of ratios to the common yardstick."""
    return "÷ yardstick" if suite == "odd" else f"÷ {CONV2D}"


def place(row: Row) -> str:
    """Return a library's title, with device and mode if they are not the usual ones."""
    title = str(TITLES.get(row.library, row.library))
    usual = row.device == "cpu" and row.mode in ("eager", "jit")
    return title if usual else f"{title} {row.device} {row.mode}"


def _numbers(row: Row) -> tuple[str, str, str]:
    if not row.passes:
        return row.error, "-", "-"
    return f"{1e3 * row.seconds:.3g}", _ratio(row.ratio), _ratio(row.yardstick)


def _ratio(interval: Interval | None) -> str:
    """Return a ratio with the larger side of the interval that the report states."""
    if interval is None:
        return "-"
    value, low, high = interval.value, interval.low, interval.high
    return f"{value:.2f}±{max(high - value, value - low):.1g}"


def _peer(row: Row, group: Sequence[Row]) -> tuple[str, ...]:
    """Return an alternative's line, beside our row that does the same in the same library."""
    what = f"{row.map} {row.does} {' '.join(row.words[:2])}"
    milliseconds, _, common = _numbers(row)
    mine = [r for r in group if (r.role, r.does, r.place) == ("ours", row.does, row.place)]
    times = [f"{row.seconds / r.seconds:.3g}" for r in mine if r.passes and row.passes]
    return what, row.contender, place(row), milliseconds, *(times or ["-"]), common
