"""Ratios of rows to a plain convolution, and the spread that is stated for them."""

from __future__ import annotations

from collections.abc import Callable

from invconv_benchmarks.contenders.plain import CONV2D
from invconv_benchmarks.measure import spread
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.results.row import Key, Row


def baseline(row: Row, group: list[Row]) -> Row | None:
    """Return the fastest plain convolution of the row's library, device and mode."""
    plain = [r for r in group if r.role == "plain" and r.passes and r.place == row.place]
    return min(plain, key=lambda r: r.seconds, default=None)


def yardstick(row: Row, group: list[Row]) -> Row | None:
    """Return PyTorch's F.conv2d, by which all libraries are measured, on the row's device."""
    graph = row.mode == "graph"
    found = (r for r in group if r.contender == CONV2D and r.device == row.device)
    return next((r for r in found if r.passes and (r.mode == "graph") == graph), None)


class Comparison:
    """Ratios of rows to one row of their group. Their variance between passes is pooled by place.

    Parameters
    ----------
    groups : list of lists of rows
        All of a result, from `grouped`.
    to : callable
        `baseline` or `yardstick`: returns that one, or None.
    """

    def __init__(self, groups: list[list[Row]], to: Callable[[Row, list[Row]], Row | None]) -> None:
        self._others: dict[Key, Row] = {}
        pairs: dict[Key, list[tuple[spread.Passes, spread.Passes]]] = {}
        for group in groups:
            for row in group:
                other = to(row, group)
                if row.passes and other is not None:
                    self._others[row.key] = other
                    if other is not row:
                        pair = row.passes, other.passes
                        pairs.setdefault(_place(row), []).append(pair)
        self._between = {place: spread.between_passes(found) for place, found in pairs.items()}

    def between(self, row: Row) -> float:
        """Return the standard deviation of the logarithm of the row's ratio from pass to pass."""
        return self._between.get(_place(row), 0.0)

    def other(self, row: Row) -> Row | None:
        """Return what the row is compared with."""
        return self._others.get(row.key)

    def ratio(self, row: Row) -> Interval | None:
        """Return the ratio, if both were measured."""
        other = self.other(row)
        if other is None:
            return None
        return spread.ratio(row.passes, other.passes, self.between(row))


def _place(row: Row) -> Key:
    return *row.place, row.threads, row.dtype
