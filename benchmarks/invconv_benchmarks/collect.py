"""From what the workers send to the rows of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from invconv_benchmarks import maps, spread
from invconv_benchmarks.plain import CONV2D
from invconv_benchmarks.spread import Interval
from invconv_benchmarks.suites import Group

Row = dict[str, Any]
KEY = (
    "suite", "map", "shape", "axis", "dtype", "threads",
    "contender", "does", "library", "device", "mode",
)  # fmt: skip
_PLACE = ("library", "device", "mode")


def key(row: Row) -> tuple[Any, ...]:
    """Return what identifies a row within a result, and across results."""
    return tuple(tuple(v) if isinstance(v, list) else v for v in (row[k] for k in KEY))


class Collector:
    """Rows by their key, with the samples of each pass."""

    def __init__(self) -> None:
        self.ceilings: dict[tuple[Any, ...], Row] = {}
        self.pools: dict[str, Any] = {}
        self._rows: dict[tuple[Any, ...], Row] = {}

    def add(self, kind: str, message: Any, threads: int, *, memory: bool) -> None:
        """Take a message of `invconv_benchmarks.worker.run`."""
        if kind == "pools":
            self.pools[str(threads)] = message
        elif kind == "ceiling":
            self._add_ceiling(message | {"threads": threads})
        else:
            for part in _rows(message):
                if memory:
                    self._add_memory(part)
                else:
                    self._add_times(part | {"threads": threads})

    def rows(self) -> list[Row]:
        """Return all rows, with medians, ratios and shares of the roofline."""
        rows = list(self._rows.values())
        for row in rows:
            _summarise(row)
        groups = grouped(rows)
        own, common = Comparison(groups, baseline), Comparison(groups, yardstick)
        for group in groups:
            for row in group:
                _relate(row, own, common)
                row["roofline"] = self._roofline(row)
        return rows

    def _roofline(self, row: Row) -> float | None:
        place = tuple(row[k] for k in ("library", "device", "dtype", "threads"))
        if not row["passes"] or place not in self.ceilings:
            return None
        return _least_seconds(row, self.ceilings[place]) / float(row["median"])

    def _add_ceiling(self, ceiling: Row) -> None:
        place = tuple(ceiling[k] for k in ("library", "device", "dtype", "threads"))
        before = self.ceilings.get(place, ceiling)
        best = {k: max(ceiling[k], before[k]) for k in ("gemm_flops", "copy_bytes")}
        self.ceilings[place] = ceiling | best

    def _add_times(self, part: Row) -> None:
        row = self._rows.setdefault(
            key(part), part | {"passes": [], "memory": None, "residual": None}
        )
        row.pop("samples", None)
        if part["samples"]:
            row["passes"].append([float(f"{s:.5g}") for s in part["samples"]])
        row["error"] = row["error"] or part["error"]

    def _add_memory(self, part: Row) -> None:
        for place, row in self._rows.items():
            if key(part | {"threads": row["threads"]}) == place:
                row["memory"] = {k: part[k] for k in ("first", "second")}
                row["residual"] = part["residual"]


def _rows(message: Any) -> Iterator[Row]:
    group = message["group"]
    head = {k: group[k] for k in ("suite", "map", "shape", "axis", "dtype")}
    if message["error"]:
        nobody = {"role": "ours", "library": "", "device": "", "mode": ""}
        empty: Row = {"plan": None, "first": None, "calls": 1, "samples": []}
        group_failed = {"contender": "all", "does": "all", "error": message["error"]}
        yield head | nobody | empty | group_failed
    for row in message["rows"]:
        yield head | {k: None if v != v else v for k, v in row.items()}  # JSON has no NaN


def grouped(rows: list[Row]) -> list[list[Row]]:
    """Return the rows that were measured in turns, group by group."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row)[:6], []).append(row)
    return list(groups.values())


def _summarise(row: Row) -> None:
    row["p10"], row["median"], row["p90"] = (
        spread.quantiles(row["passes"]) if row["passes"] else (None, None, None)
    )


def same_place(row: Row, other: Row) -> bool:
    """Tell whether two rows ran on one library, device and mode."""
    return all(row[k] == other[k] for k in _PLACE)


def baseline(row: Row, group: list[Row]) -> Row | None:
    """Return the fastest plain convolution of the row's library, device and mode."""
    plain = [r for r in group if r["role"] == "plain" and r["passes"] and same_place(r, row)]
    return min(plain, key=lambda r: float(r["median"]), default=None)


def yardstick(row: Row, group: list[Row]) -> Row | None:
    """Return PyTorch's F.conv2d, by which all libraries are measured, on the row's device."""
    graph = row["mode"] == "graph"
    found = (r for r in group if r["contender"] == CONV2D and r["device"] == row["device"])
    return next((r for r in found if r["passes"] and (r["mode"] == "graph") == graph), None)


class Comparison:
    """Ratios of rows to one of their group, with what passes differ by pooled over all of a place.

    Parameters
    ----------
    groups : list of lists of rows
        All of a result, from `grouped`.
    to : callable
        `baseline` or `yardstick`: returns that one, or None.
    """

    def __init__(self, groups: list[list[Row]], to: Callable[[Row, list[Row]], Row | None]) -> None:
        self._others: dict[tuple[Any, ...], Row] = {}
        pairs: dict[tuple[Any, ...], list[tuple[spread.Passes, spread.Passes]]] = {}
        for group in groups:
            for row in group:
                other = to(row, group)
                if row["passes"] and other is not None:
                    self._others[key(row)] = other
                    if other is not row:
                        pair = row["passes"], other["passes"]
                        pairs.setdefault(_place(row), []).append(pair)
        self._between = {place: spread.between_passes(found) for place, found in pairs.items()}

    def between(self, row: Row) -> float:
        """Return the standard deviation of the logarithm of the row's ratio from pass to pass."""
        return self._between.get(_place(row), 0.0)

    def other(self, row: Row) -> Row | None:
        """Return what the row is compared with."""
        return self._others.get(key(row))

    def ratio(self, row: Row) -> Interval | None:
        """Return the ratio, if both were measured."""
        other = self.other(row)
        if other is None:
            return None
        return spread.ratio(row["passes"], other["passes"], self.between(row))


def _place(row: Row) -> tuple[Any, ...]:
    return tuple(row[k] for k in (*_PLACE, "threads", "dtype"))


def _relate(row: Row, own: Comparison, common: Comparison) -> None:
    """Fill in what a row is compared with."""
    plain, found, measured = own.other(row), own.ratio(row), common.ratio(row)
    row["between"] = own.between(row)
    row["against"] = plain and plain["contender"]
    row["ratio"], row["low"], row["high"] = (
        (found.value, found.low, found.high) if found else (None, None, None)
    )
    row["yardstick"] = asdict(measured) if measured else None


def _least_seconds(row: Row, ceiling: Row) -> float:
    """Return how long the map's arithmetic, or reading and writing the images once, must take."""
    does = () if row["does"] == "all" else (row["does"],)
    group = Group(row["suite"], row["map"], tuple(row["shape"]), does, dtype=row["dtype"])
    moved = 2 * maps.input_bytes(group)
    arithmetic = maps.flops(group) / float(ceiling["gemm_flops"])
    return max(arithmetic, moved / float(ceiling["copy_bytes"]))
