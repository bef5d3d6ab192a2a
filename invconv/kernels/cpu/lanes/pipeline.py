"""The lanes are rows of one image and never pause: a lane that is through goes on with a later row.

As in `strips`, lane l lags behind lane l - 1. Here strips of rows follow each other in the same
levels: pixel j of row l of strip s is lane l of level j + lag l + period s. The period is the width
and a gap of zeros, for what taps read before the start and behind the end of a row. A strip's first
row reads the last ones of the strip before, which were solved at least a part earlier.

A part is some levels. First the rows of each strip that has pixels in it enter, then all is solved,
then they leave.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.kernels.cpu.lanes import rows
from invconv.kernels.cpu.lanes.strips import Strips
from invconv.kernels.cpu.plan import BAND, Geometry
from invconv.kernels.cpu.program import Header, Segment

_LONGEST = 2**12  # levels, each of which has a mask in the program


@dataclass(frozen=True)
class Pipeline:
    """All strips of an image in one buffer.

    Attributes
    ----------
    geometry : Geometry
        Of a grid of two axes.
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
        """How many levels an image has."""
        last = self.strips.count - 1
        return self.period * last + self.strips.levels(last)

    @property
    def unit(self) -> int:
        """Levels that are copied together."""
        return max(8, self.geometry.lanes)

    @functools.cached_property
    def part(self) -> int:
        """Levels that are solved at a time, so that the rows above have left before they enter."""
        g, s = self.geometry, self.strips
        most = min(BAND // (s.level * g.itemsize), self.period - s.lag * g.lanes)
        return most // self.unit * self.unit

    @property
    def size(self) -> int:
        """Numbers of the buffer but for the sums of a pixel."""
        return (self.strips.back + self.part) * self.strips.level + 2 * self.geometry.lanes

    def present(self, first: int, stop: int) -> list[int]:
        """Return the strips that have pixels in some levels, or rows above that are read there.

        Or the last one before, where none has.
        """
        s = self.strips
        starts = [self.period * n - (s.lag * s.above if n else 0) for n in range(s.count)]
        ends = [self.period * n + s.levels(n) for n in range(s.count)]
        ends = [max(end, after) for end, after in zip(ends, [*starts[1:], 0], strict=True)]
        return [n for n in range(s.count) if starts[n] < stop and first < ends[n]]


def possible(g: Geometry) -> bool:
    """Tell whether an image has strips that can follow each other so."""
    if len(g.shape) != 2 or not rows.possible(g):
        return False
    p = Pipeline(g)
    return p.strips.count > 1 and p.part > 0 and p.levels <= _LONGEST


def header(g: Geometry) -> Header:
    """Return what the segments have in common."""
    size = Pipeline(g).size
    return replace(rows.header(g, False), units=1, masked=1, spare=size, size=size + g.spare)


def masks(g: Geometry) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Return, for each level, which lanes are inside the grid."""
    p, lane = Pipeline(g), np.arange(g.lanes)
    column = np.arange(p.levels)[:, None] - p.strips.lag * lane
    strip, column = np.divmod(column, p.period)
    row = strip * g.lanes + lane
    return ((strip >= 0) & (row < g.shape[0]) & (column < g.shape[1])).astype(np.int8)


def segments(g: Geometry) -> list[list[Segment]]:
    """Return the segments of the only unit, in the order of the solve."""
    p = Pipeline(g)
    found = list[Segment]()
    for first in range(0, p.levels, p.part):
        found += _part(p, first, min(first + p.part, p.levels))
    return [found]


def _part(p: Pipeline, first: int, stop: int) -> Iterator[Segment]:
    """Yield what solves levels first to stop."""
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
    """Return levels that are copied together, from and to, and which strips are in them."""
    found = []
    for start in range(first, stop, p.unit):
        end = min(start + p.unit, stop)
        found.append((start, end, p.present(start, end)))
    return [
        (same[0][0], same[-1][1], strips)
        for strips, group in itertools.groupby(found, key=lambda block: block[2])
        for same in [list(group)]
    ]


def _copied(
    p: Pipeline, strip: int, first: int, start: int, entered: int = 0, left: int = 0, **others: int
) -> Segment:
    """Return what copies levels of a strip, in a part whose first level is ``first``."""
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
