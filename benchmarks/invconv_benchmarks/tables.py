"""A result as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table

from invconv_benchmarks import maps
from invconv_benchmarks.collect import Row, grouped
from invconv_benchmarks.plain import CONV2D
from invconv_benchmarks.result import Document
from invconv_benchmarks.spread import Interval
from invconv_benchmarks.suites import Group, as_text
from invconv_conformance.libraries import LIBRARIES

TITLES = {library.name: library.title for library in LIBRARIES}


def tables(document: Document) -> Iterator[Table]:
    """Yield all tables of a result."""
    groups = grouped([r for r in document["rows"] if not r["axis"]])
    by_map = groupby(groups, key=lambda g: (g[0]["suite"], g[0]["map"]))
    for (suite, name), members in by_map:
        some = list(members)
        for does in dict.fromkeys(r["does"] for g in some for r in g if r["role"] == "ours"):
            yield _ours(f"{suite}: {name}, {does}", does, some)
    peers = [g for g in groups if any(r["role"] == "peer" for r in g)]
    if peers:
        yield _peers(peers)
    if document["exponents"]:
        yield exponents(document["exponents"])
    yield from limits(document["limits"])


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
    title = str(TITLES.get(row["library"], row["library"]))
    usual = row["device"] == "cpu" and row["mode"] in ("eager", "jit")
    return title if usual else f"{title} {row['device']} {row['mode']}"


def _ours(title: str, does: str, groups: list[list[Row]]) -> Table:
    """Return a table with a line a library: milliseconds, and ratios with their spread."""
    columns = ("ms", "÷ plain", f"÷ {CONV2D}", "roofline")
    table = new(title, ("B x C x H x W", "", "thr", "library"), columns)
    for group in groups:
        mine = [r for r in group if r["role"] == "ours" and r["does"] == does]
        for i, row in enumerate(mine):
            where = as_text(row["shape"]), row["dtype"].replace("float", "f"), str(row["threads"])
            table.add_row(*(("", "", "") if i else where), place(row), *_numbers(row))
    return table


def _numbers(row: Row) -> tuple[str, ...]:
    if not row["passes"]:
        return ("failed", "-", "-", "-")
    share = "-" if row["roofline"] is None else f"{row['roofline']:.0%}"
    return f"{1e3 * row['median']:.3g}", ratio(own_ratio(row)), ratio(common_ratio(row)), share


def own_ratio(row: Row) -> Interval | None:
    """Return the ratio to the library's fastest plain convolution."""
    return None if row["ratio"] is None else Interval(row["ratio"], row["low"], row["high"])


def common_ratio(row: Row) -> Interval | None:
    """Return the ratio to PyTorch's F.conv2d in the same run."""
    return Interval(**row["yardstick"]) if row["yardstick"] else None


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
    peak = (row["memory"] or {}).get("second")
    if peak is None or row["does"] == "matrix":
        return "-"
    group = Group(row["suite"], row["map"], tuple(row["shape"]), (), dtype=row["dtype"])
    return f"{peak / maps.input_bytes(group):.1f}"


def _peers(groups: list[list[Row]]) -> Table:
    table = new("what else there is", ("what", "instead", "in"), ("time", "x ours", f"÷ {CONV2D}"))
    for column in table.columns[:2]:
        column.no_wrap = False
    for group in groups:
        for row in group:
            if row["role"] == "peer":
                does = row["does"].replace("unprepared", "inverse")
                where = f"{as_text(row['shape'])} {row['dtype'].replace('float', 'f')}"
                table.add_row(
                    f"{row['map']} {does} {where}",
                    f"{row['contender'].replace(' forward', '').replace(' inverse', '')}",
                    place(row),
                    *_against_ours(row, group),
                )
    return table


def _against_ours(row: Row, group: list[Row]) -> tuple[str, str, str]:
    if not row["passes"]:
        return row["error"].rpartition(": ")[2], "", ""
    mine, common = counterpart(row, group), common_ratio(row)
    times = f"{row['median'] / mine['median']:.3g}" if mine else "-"
    return milliseconds(row["median"]), times, f"{common.value:.3g}" if common else "-"


def counterpart(row: Row, group: list[Row]) -> Row | None:
    """Return our row that does what a peer does, in the same library."""
    keys = ("does", "library", "device", "mode")
    mine = (r for r in group if r["role"] == "ours" and all(r[k] == row[k] for k in keys))
    return next((r for r in mine if r["passes"]), None)


def exponents(fits: list[dict[str, Any]]) -> Table:
    """Return the table of fitted exponents."""
    title = "cost = c size^exponent, over all sizes and the larger ones (± 95 % of the fit)"
    table = new(title, ("axis", "library", "what"), ("range", "all", "range", "larger"))
    keys = ("axis", "library", "device", "mode", "contender", "does", "dtype", "threads")
    for _, both in groupby(fits, key=lambda f: tuple(f[k] for k in keys)):
        some = {f["range"]: f for f in both}
        first = next(iter(some.values()))
        cells = [c for name in ("all", "upper half") for c in _fit(some.get(name))]
        table.add_row(
            first["axis"], place(first), first["contender"].replace("invconv ", ""), *cells
        )
    return table


def _fit(fit: dict[str, Any] | None) -> tuple[str, str]:
    if fit is None:
        return "-", "-"
    return f"{size(fit['start'])}-{size(fit['stop'])}", f"{fit['value']:.2f}±{fit['error']:.1g}"


def size(value: float) -> str:
    """Return "16.8M" for a large size."""
    return (
        f"{value:g}"
        if value < 1e4
        else f"{value / 1e3:.3g}k"
        if value < 1e6
        else f"{value / 1e6:.3g}M"
    )


def limits(verdicts: list[dict[str, Any]]) -> Iterator[Table]:
    """Yield a table a limit: pass or miss where the whole spread agrees, else unclear."""
    colors = {"pass": "green", "miss": "red", "unclear": "yellow"}
    for limit, some in groupby(verdicts, key=lambda v: v["limit"]):
        mine = list(some)
        passed = sum(v["verdict"] == "pass" for v in mine)
        title = f"limit: {limit} ({passed} of {len(mine)} pass)"
        table = new(title, ("row",), ("limit", "value", "spread", "verdict"))
        for v in mine:
            color = colors[v["verdict"]]
            exact = v["low"] == v["high"]
            spread = "" if exact else f"{v['low']:.3g}-{v['high']:.3g}"
            verdict = f"[{color}]{v['verdict']}[/]"
            table.add_row(v["what"], f"{v['bound']:g}", f"{v['value']:.3g}", spread, verdict)
        yield table
