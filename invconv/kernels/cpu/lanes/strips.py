"""Strips of rows of an image as lanes: the lag of rows, and the layout of the buffer.

With lag w, pixel (l, j) of a strip is lane l of level j + w l: every tap reads an earlier level. A
level has C times two vectors. The second vector has the strip's rows; the first one, before it, has
the rows above that the taps read, so that a tap that reads u rows above reads u lanes before.

Strips follow each other, and a wide strip is solved some levels at a time. With more than two axes,
the planes of the last two follow each other; the buffer then has whole planes, as many as taps
read, in slots that are used in turn.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from invconv.kernels.cpu.geometry import BAND, Geometry

_PARTS = 4  # parts of a strip, so that another thread may follow


@dataclass(frozen=True)
class Levels:
    """The levels of the strips of a plane."""

    geometry: Geometry
    # whether several threads solve the strips of an image: then a strip has parts, and the next
    # strip may go on after each part
    shared: bool

    @property
    def above(self) -> int:
        """The number of rows above its own that a strip reads."""
        return self.geometry.margins[-2]

    @property
    def lag(self) -> int:
        """The number of levels by which a row lags behind the row above it."""
        return self.geometry.lag

    @functools.cached_property
    def levels_back(self) -> list[int]:
        """The number of levels back that each tap reads."""
        return [self.lag * o[-2] + o[-1] for o in self.geometry.reach]

    @functools.cached_property
    def back(self) -> int:
        """The most levels back that a tap reads."""
        return max(self.levels_back)

    @functools.cached_property
    def ahead(self) -> int:
        """The most levels ahead that a tap reads, in earlier planes."""
        return max(0, -min(self.levels_back))

    @property
    def masked(self) -> bool:
        """Whether a tap reads ahead in a row, and thus beyond its end."""
        return any(o[-1] < 0 for o in self.geometry.reach)

    @property
    def channel_step(self) -> int:
        """Numbers from channel to channel of a level."""
        return (2 if self.above else 1) * self.geometry.lanes

    @functools.cached_property
    def level(self) -> int:
        """Numbers of a level."""
        return self.geometry.channels * self.channel_step

    @property
    def count(self) -> int:
        """The number of strips of a plane."""
        return -(-self.geometry.shape[-2] // self.geometry.lanes)

    def lines(self, strip: int) -> int:
        """Return the number of rows of a strip."""
        return min(self.geometry.lanes, self.geometry.shape[-2] - strip * self.geometry.lanes)

    def levels(self, strip: int) -> int:
        """Return the number of levels of a strip."""
        return self.geometry.shape[-1] + self.lag * (self.lines(strip) - 1)


@dataclass(frozen=True)
class Strips(Levels):
    """Strips of rows of an image in the buffer."""

    @functools.cached_property
    def part(self) -> int:
        """Levels that are solved at a time: a multiple of the lanes and of 8, or all."""
        g, most = self.geometry, self.levels(0)
        if len(g.shape) > 2:
            return most
        unit = max(8, g.lanes)
        wanted = BAND // (self.level * g.itemsize)
        if self.shared:
            wanted = min(wanted, -(-most // _PARTS))
        return max(2 * unit, wanted // unit * unit)

    @functools.cached_property
    def starts(self) -> tuple[list[int], list[int]]:
        """Return the first level of each part of an even strip, and of an odd one.

        All pixels that part p of an odd strip reads are solved as soon as part p of the strip above
        is, since parts of odd strips end earlier, by the lag of the last row. So a thread follows
        the thread of the strip above closely, and that thread, which takes a later strip, rarely
        waits.
        """
        even = list(range(0, self.levels(0), self.part))
        late, unit = self.lag * (self.lines(0) - 1 + self.above), max(8, self.geometry.lanes)
        first = self.part - -(-late // unit) * unit
        if not self.shared or first <= 0:
            return even, even
        return even, [0, *range(first, self.levels(0), self.part)]

    @functools.cached_property
    def strip_size(self) -> int:
        """Numbers of a strip, or of a part of it, with the levels that it reads."""
        return (self.back + min(self.part, self.levels(0)) + self.ahead) * self.level

    @functools.cached_property
    def planes(self) -> tuple[int, ...]:
        """Planes from one to the next along each of the first axes, with empty ones between."""
        g, strides = self.geometry, list[int]()
        for n, margin in zip(g.shape[-3:0:-1], g.margins[-3:0:-1], strict=True):
            strides.insert(0, (strides[0] if strides else 1) * (n + margin))
        return (*strides, 1) if len(g.shape) > 2 else ()

    def planes_back(self, reach: tuple[int, ...]) -> int:
        """Return the number of planes back that a tap reads."""
        return sum(o * stride for o, stride in zip(reach, self.planes, strict=False))

    @functools.cached_property
    def slots(self) -> int:
        """The number of planes in the buffer at a time."""
        return 1 + max(map(self.planes_back, self.geometry.reach))

    @functools.cached_property
    def slot_size(self) -> int:
        """Numbers of a plane."""
        return self.strip_size * (self.count if len(self.geometry.shape) > 2 else 1)

    @property
    def size(self) -> int:
        """Numbers of the buffer without the sums of a pixel."""
        return self.slots * self.slot_size + 2 * self.geometry.lanes

    def place(self, slot: int, strip: int, level: int) -> int:
        """Return the place of lane 0 of a level, which is counted from the first one of a part."""
        start = slot * self.slot_size + strip * self.strip_size
        lane = self.geometry.lanes if self.above else 0
        return start + (self.back + level) * self.level + lane
