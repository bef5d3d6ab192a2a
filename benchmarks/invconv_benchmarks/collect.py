"""From what the workers send to the rows of a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from invconv_benchmarks import maps, spread
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
        between = _between_passes(groups)
        for group in groups:
            _relate(group, between, self.ceilings)
        return rows

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


def _place(row: Row) -> tuple[Any, ...]:
    return tuple(row[k] for k in (*_PLACE, "threads", "dtype"))


def _between_passes(groups: list[list[Row]]) -> dict[tuple[Any, ...], float]:
    """Return what a ratio varies by from pass to pass, on each library, in each way to run it."""
    pairs: dict[tuple[Any, ...], list[tuple[spread.Passes, spread.Passes]]] = {}
    for group in groups:
        for row in group:
            plain = baseline(row, group)
            if row["passes"] and plain is not None and plain is not row:
                pairs.setdefault(_place(row), []).append((row["passes"], plain["passes"]))
    return {place: spread.between_passes(found) for place, found in pairs.items()}


def _relate(
    group: list[Row], between: dict[tuple[Any, ...], float], ceilings: dict[tuple[Any, ...], Row]
) -> None:
    """Fill in what a row is compared with."""
    for row in group:
        plain = baseline(row, group)
        row["between"] = between.get(_place(row), 0.0)
        row["against"] = row["ratio"] = row["low"] = row["high"] = row["roofline"] = None
        if not row["passes"]:
            continue
        if plain is not None:
            found = spread.ratio(row["passes"], plain["passes"], row["between"])
            row["against"] = plain["contender"]
            row["ratio"], row["low"], row["high"] = found.value, found.low, found.high
        place = tuple(row[k] for k in ("library", "device", "dtype", "threads"))
        if place in ceilings:
            row["roofline"] = _least_seconds(row, ceilings[place]) / row["median"]


def _least_seconds(row: Row, ceiling: Row) -> float:
    """Return how long the map's arithmetic, or reading and writing the images once, must take."""
    does = () if row["does"] == "all" else (row["does"],)
    group = Group(row["suite"], row["map"], tuple(row["shape"]), does, dtype=row["dtype"])
    moved = 2 * maps.input_bytes(group)
    arithmetic = maps.flops(group) / float(ceiling["gemm_flops"])
    return max(arithmetic, moved / float(ceiling["copy_bytes"]))
