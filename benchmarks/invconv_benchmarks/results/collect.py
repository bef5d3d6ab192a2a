"""Collects the messages of worker processes into the rows of a result."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from invconv_benchmarks.measure import spread
from invconv_benchmarks.measure.ceilings import Ceiling
from invconv_benchmarks.measure.contender import Label
from invconv_benchmarks.measure.turns import Timing
from invconv_benchmarks.results.comparison import Comparison, baseline, yardstick
from invconv_benchmarks.results.messages import Message, Pools, Sizes, Times
from invconv_benchmarks.results.row import Key, Row, grouped
from invconv_benchmarks.suites import maps
from invconv_benchmarks.suites.group import Group

_ALL = Label("all", "ours", "all", "", "", "")


class Collector:
    """Rows by their key, with the samples of each pass."""

    def __init__(self) -> None:
        self.ceilings: dict[Key, Ceiling] = {}
        self.pools: dict[str, list[dict[str, Any]]] = {}
        self._rows: dict[Key, Row] = {}

    def add(self, message: Message, threads: int) -> None:
        """Take a message of `invconv_benchmarks.runs.worker.run`."""
        match message:
            case Pools(found):
                self.pools[str(threads)] = found
            case Ceiling():
                before = self.ceilings.get(message.place, message)
                self.ceilings[message.place] = message.best(before)
            case Times(group, rows, error):
                if error:
                    self._add_times(group, _ALL, Timing(error=error), threads)
                for label, timing in rows:
                    self._add_times(group, label, timing, threads)
            case Sizes():
                self._add_sizes(message)

    def rows(self) -> list[Row]:
        """Return all rows, with medians, ratios and shares of the roofline."""
        rows = list(self._rows.values())
        for row in rows:
            if row.passes:
                row.p10, row.median, row.p90 = spread.quantiles(row.passes)
        groups = grouped(rows)
        own, common = Comparison(groups, baseline), Comparison(groups, yardstick)
        for row in rows:
            plain = own.other(row)
            row.between, row.against = own.between(row), plain.contender if plain else None
            row.ratio, row.yardstick = own.ratio(row), common.ratio(row)
            row.roofline = self._roofline(row)
        return rows

    def _roofline(self, row: Row) -> float | None:
        place = row.library, row.device, row.dtype, row.threads
        if not row.passes or place not in self.ceilings:
            return None
        return _least_seconds(row, self.ceilings[place]) / row.seconds

    def _add_times(self, group: Group, label: Label, timing: Timing, threads: int) -> None:
        row = _row(group, label, threads)
        if row.key not in self._rows:
            row.plan, row.first, row.calls = _known(timing.plan), _known(timing.first), timing.calls
        row = self._rows.setdefault(row.key, row)
        if timing.samples:
            row.passes.append([float(f"{s:.5g}") for s in timing.samples])
        row.error = row.error or timing.error

    def _add_sizes(self, message: Sizes) -> None:
        """Give the rows of all numbers of threads the memory and the residual of one."""
        for label, peak, residual in message.rows:
            for row in self._rows.values():
                if _row(message.group, label, row.threads).key == row.key:
                    row.memory, row.residual = peak, _known(residual)


def _row(group: Group, label: Label, threads: int) -> Row:
    return Row(
        group.suite,
        group.map,
        group.shape,
        group.axis,
        group.dtype,
        threads,
        **dataclasses.asdict(label),
    )


def _known(number: float | None) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return None if number is None or math.isnan(number) else number


def _least_seconds(row: Row, ceiling: Ceiling) -> float:
    """Return how long the map's arithmetic, or reading and writing the images once, must take."""
    arithmetic = maps.flops(row.group) / ceiling.gemm_flops
    return max(arithmetic, 2 * maps.input_bytes(row.group) / ceiling.copy_bytes)
