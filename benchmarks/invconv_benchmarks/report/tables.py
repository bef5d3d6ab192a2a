"""A result as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich import box
from rich.table import Table

from invconv_benchmarks.contenders.plain import CONV2D
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.results.fits import Fit
from invconv_benchmarks.results.limits import Verdict
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import TITLES, Row, grouped
from invconv_benchmarks.suites import maps

_COLORS = {"pass": "green", "miss": "red", "unclear": "yellow"}


def tables(result: Result) -> Iterator[Table]:
    """Yield all tables of a result."""
    groups = grouped([r for r in result.rows if not r.axis])
    by_map = groupby(groups, key=lambda g: (g[0].suite, g[0].map))
    for (suite, name), members in by_map:
        some = list(members)
        for does in dict.fromkeys(r.does for g in some for r in g if r.role == "ours"):
            yield _ours(f"{suite}: {name}, {does}", does, some)
    peers = [g for g in groups if any(r.role == "peer" for r in g)]
    if peers:
        yield _peers(peers)
    if result.exponents:
        yield exponents(result.exponents).table()
    yield from (limit.table() for limit in limits(result.limits))


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


def place(row: Row | Fit) -> str:
    """Return a library's title, and its device and mode where those are not the usual ones."""
    title = str(TITLES.get(row.library, row.library))
    usual = row.device == "cpu" and row.mode in ("eager", "jit")
    return title if usual else f"{title} {row.device} {row.mode}"


def _ours(title: str, does: str, groups: list[list[Row]]) -> Table:
    """Return a table with a line a library: milliseconds, and ratios with their spread."""
    columns = ("ms", "÷ plain", f"÷ {CONV2D}", "roofline")
    table = new(title, ("B x C x H x W", "", "thr", "library"), columns)
    for group in groups:
        mine = [r for r in group if r.role == "ours" and r.does == does]
        for i, row in enumerate(mine):
            table.add_row(*(("", "", "") if i else row.words), place(row), *_numbers(row))
    return table


def _numbers(row: Row) -> tuple[str, ...]:
    if not row.passes:
        return ("failed", "-", "-", "-")
    share = "-" if row.roofline is None else f"{row.roofline:.0%}"
    return f"{1e3 * row.seconds:.3g}", ratio(row.ratio), ratio(row.yardstick), share


def milliseconds(seconds: float) -> str:
    """Return three digits."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def ratio(found: Interval | None) -> str:
    """Return a ratio with the larger side of the interval that the report states."""
    if found is None:
        return "-"
    return f"{found.value:.2f}±{max(found.high - found.value, found.value - found.low):.1g}"


def memory(row: Row) -> str:
    """Return the peak memory of a second call, in inputs."""
    if row.memory is None or row.memory.second is None or row.does == "matrix":
        return "-"
    return f"{row.memory.second / maps.input_bytes(row.group):.1f}"


def _peers(groups: list[list[Row]]) -> Table:
    table = new("what else there is", ("what", "instead", "in"), ("time", "x ours", f"÷ {CONV2D}"))
    for column in table.columns[:2]:
        column.no_wrap = False
    for group in groups:
        for row in group:
            if row.role == "peer":
                does = row.does.replace("unprepared", "inverse")
                shape, dtype, _ = row.words
                table.add_row(
                    f"{row.map} {does} {shape} {dtype}",
                    f"{row.contender.replace(' forward', '').replace(' inverse', '')}",
                    place(row),
                    *_against_ours(row, group),
                )
    return table


def _against_ours(row: Row, group: list[Row]) -> tuple[str, str, str]:
    if not row.passes:
        return row.error.rpartition(": ")[2], "", ""
    mine, common = counterpart(row, group), row.yardstick
    times = f"{row.seconds / mine.seconds:.3g}" if mine else "-"
    return milliseconds(row.seconds), times, f"{common.value:.3g}" if common else "-"


def counterpart(row: Row, group: list[Row]) -> Row | None:
    """Return our row that does what a peer does, in the same library."""
    mine = (r for r in group if r.role == "ours" and r.does == row.does and r.place == row.place)
    return next((r for r in mine if r.passes), None)


@dataclass(frozen=True)
class Section:
    """A titled table, for a terminal or a page: heads of words, heads of numbers, and cells."""

    title: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def table(self) -> Table:
        """Return it for a terminal, with verdicts in colour."""
        shown = new(self.title, self.left, self.right)
        for *cells, last in self.rows:
            color = _COLORS.get(last)
            shown.add_row(*cells, f"[{color}]{last}[/]" if color else last)
        return shown


def exponents(fits: Sequence[Fit]) -> Section:
    """Return the fitted exponents."""
    title = "cost = c size^exponent, over all sizes and the larger ones (± 95 % of the fit)"
    rows = []
    for _, both in groupby(fits, key=lambda f: f.series):
        some = {f.range: f for f in both}
        first = next(iter(some.values()))
        cells = [c for name in ("all", "upper half") for c in _fit(some.get(name))]
        rows.append((first.axis, place(first), first.contender.replace("invconv ", ""), *cells))
    return Section(title, ("axis", "library", "what"), ("range", "all", "range", "larger"), rows)


def _fit(fit: Fit | None) -> tuple[str, str]:
    if fit is None:
        return "-", "-"
    return f"{size(fit.start)}-{size(fit.stop)}", f"{fit.value:.2f}±{fit.error:.1g}"


def size(value: float) -> str:
    """Return "16.8M" for a large size."""
    if value < 1e4:
        return f"{value:g}"
    return f"{value / 1e3:.3g}k" if value < 1e6 else f"{value / 1e6:.3g}M"


def limits(verdicts: Sequence[Verdict]) -> Iterator[Section]:
    """Yield each limit: pass or miss where the whole spread agrees, else unclear."""
    for limit, some in groupby(verdicts, key=lambda v: v.limit):
        rows = []
        for v in some:
            spread = "" if v.low == v.high else f"{v.low:.3g}-{v.high:.3g}"
            rows.append((v.what, f"{v.bound:g}", f"{v.value:.3g}", spread, v.verdict))
        passed = sum(row[-1] == "pass" for row in rows)
        title = f"limit: {limit} ({passed} of {len(rows)} pass)"
        yield Section(title, ("row",), ("limit", "value", "spread", "verdict"), rows)
