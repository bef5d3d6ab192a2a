"""The lanes are rows of one image and never pause: a lane that finishes a row takes a later row.

As in `strips`, lane l lags behind lane l - 1. Here strips of rows follow each other in the same
levels: pixel j of row l of strip s is lane l of level j + lag l + period s. The period is the width
and a gap of zeros, which taps read before the start and behind the end of a row. A strip's first
row reads the last rows of the strip before, which were solved at least a part earlier.

A part is some levels. First the rows of each strip with pixels in the part enter, then the part is
solved, then they leave.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.kernels.cpu.geometry import BAND, Geometry
from invconv.kernels.cpu.lanes import rows
from invconv.kernels.cpu.lanes.strips import Strips
from invconv.kernels.cpu.program import Header, Segment

_LONGEST = 2**12  # levels at most: each has a mask in the program


@dataclass(frozen=True)
class Pipeline:
    """All strips of an image in one buffer.

    Attributes
    ----------
    geometry : Geometry
        The geometry of a grid of two axes.
    """

    geometry: Geometry

    @functools.cached_property
    def strips(self) -> Strips:
        """The strips, as if each were solved by itself."""
        return Strips(self.geometry, shared=False)

    @functools.cached_property
    def period(self) -> int:
        """Levels from one strip to the next."""
        return self.geometry.shape[-1] + self.geometry.margins[-1]

    @functools.cached_property
    def levels(self) -> int:
        """The number of levels of an image."""
        last = self.strips.count - 1
        return self.period * last + self.strips.levels(last)

    @property
    def unit(self) -> int:
        """Levels that are copied together."""
        return max(8, self.geometry.lanes)

    @functools.cached_property
    def part(self) -> int:
        """Levels that are solved at a time: so few that rows above leave before they are read."""
        g, s = self.geometry, self.strips
        most = min(BAND // (s.level * g.itemsize), self.period - s.lag * g.lanes)
        return most // self.unit * self.unit

    @property
    def size(self) -> int:
        """Numbers of the buffer without the sums of a pixel."""
        return (self.strips.back + self.part) * self.strips.level + 2 * self.geometry.lanes

    def present(self, first: int, stop: int) -> list[int]:
        """Return the strips that have pixels, or read rows above them, in some levels.

        If no strip has, return the last one before.
        """
        s = self.strips
        starts = [self.period * n - (s.lag * s.above if n else 0) for n in range(s.count)]
        ends = [self.period * n + s.levels(n) for n in range(s.count)]
        ends = [max(end, after) for end, after in zip(ends, [*starts[1:], 0], strict=True)]
        return [n for n in range(s.count) if starts[n] < stop and first < ends[n]]


def possible(g: Geometry) -> bool:
    """Tell whether the strips of an image can follow each other without a pause."""
    if len(g.shape) != 2 or not rows.possible(g):
        return False
    p = Pipeline(g)
    return p.strips.count > 1 and p.part > 0 and p.levels <= _LONGEST


def header(g: Geometry) -> Header:
    """Return the header of the program."""
    size = Pipeline(g).size
    return replace(rows.header(g, False), units=1, masked=1, spare=size, size=size + g.spare)


def masks(g: Geometry) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Return, for each level, the mask of the lanes inside the grid."""
    p, lane = Pipeline(g), np.arange(g.lanes)
    column = np.arange(p.levels)[:, None] - p.strips.lag * lane
    strip, column = np.divmod(column, p.period)
    row = strip * g.lanes + lane
    return ((strip >= 0) & (row < g.shape[0]) & (column < g.shape[1])).astype(np.int8)


def segments(g: Geometry) -> list[list[Segment]]:
    """Return the segments of the only unit, in the order of the solve."""
    p = Pipeline(g)
    solved = list[Segment]()
    for first in range(0, p.levels, p.part):
        solved += _part(p, first, min(first + p.part, p.levels))
    return [solved]


def _part(p: Pipeline, first: int, stop: int) -> Iterator[Segment]:
    """Yield the segments that copy in, solve and copy out levels first to stop."""
    s, g = p.strips, p.geometry
    back = s.back * s.level
    before = {"move_from": p.part * s.level, "move_count": back}
    if first == 0:
        before = {"clear_count": back}
    for start, end, present in _blocks(p, first, stop):
        for adds, strip in enumerate(present):
            yield _copied(p, strip, first, start, entered=end - start, adds=adds > 0, **before)
            before = {}
    yield Segment(at=s.place(0, 0, 0), rows=1, columns=stop - first, keep=first * g.lanes // 8)
    for start, end, present in _blocks(p, first, stop):
        for strip in present:
            yield _copied(p, strip, first, start, left=end - start)


def _blocks(p: Pipeline, first: int, stop: int) -> list[tuple[int, int, list[int]]]:
    """Return (first level, end, strips) of the levels that are copied together."""
    units = []
    for start in range(first, stop, p.unit):
        end = min(start + p.unit, stop)
        units.append((start, end, p.present(start, end)))
    return [
        (same[0][0], same[-1][1], strips)
        for strips, group in itertools.groupby(units, key=lambda block: block[2])
        for same in [list(group)]
    ]


def _copied(
    p: Pipeline, strip: int, first: int, start: int, entered: int = 0, left: int = 0, **others: int
) -> Segment:
    """Return the segment that copies levels of a strip; the part begins at level ``first``."""
    s, g = p.strips, p.geometry
    (down, along), (height, wide) = g.direction, g.shape
    level, count, row = start - strip * p.period, entered or left, strip * g.lanes
    origin = s.place(0, 0, start - first)
    return Segment(
        memory=(row if down > 0 else height - 1 - row) * wide,
        lines=s.lines(strip),
        start=level if along > 0 else wide - level - count,
        entered=entered,
        left=left,
        place=origin if along > 0 else s.place(0, 0, start - first + count - 1),
        first=strip > 0,
        level=level,
        origin=origin,
        **others,
    )
