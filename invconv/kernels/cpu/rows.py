"""The lanes are rows of one image, a strip at a time: where things are in the buffer, the segments.

With lag w, pixel (l, j) of a strip is lane l of level j + w l: every tap reads an earlier level. A
level has C times two vectors. The second one is the strip's rows; before it, in the first one, are
the rows above them that the taps read, so that a tap that reads u rows above reads u lanes before.

Strips follow each other, and a wide one is solved some levels at a time. Of three and more axes,
the planes of the last two follow each other; the buffer then has whole planes, as many as taps
read, in slots that are used in turn.

Called by `assembly`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from invconv.kernels.cpu.plan import BAND, Geometry, TapList
from invconv.kernels.cpu.program import Header, Segment

_LARGEST = 2**26  # bytes of a buffer
_PARTS = 4  # of a strip, so that another thread may follow


@dataclass(frozen=True)
class Strips:
    """Strips of rows of an image in the buffer.

    Attributes
    ----------
    geometry : Geometry
    shared : bool
        Whether several threads solve the strips of an image: then a strip has parts, after each of
        which the next strip may go on.
    """

    geometry: Geometry
    shared: bool

    @property
    def above(self) -> int:
        """How many rows above its own a strip reads."""
        return self.geometry.margins[-2]

    @functools.cached_property
    def lag(self) -> int:
        """By how many levels a row lags behind the one above it."""
        taps = [o for o in self.geometry.reach if not any(o[:-2]) and o[-2] > 0]
        return max([0, *(-((o[-1] - 1) // o[-2]) for o in taps)])

    @functools.cached_property
    def levels_back(self) -> list[int]:
        """How many levels back each tap reads."""
        return [self.lag * o[-2] + o[-1] for o in self.geometry.reach]

    @functools.cached_property
    def back(self) -> int:
        """The most of them."""
        return max(self.levels_back)

    @functools.cached_property
    def ahead(self) -> int:
        """How many levels ahead taps read, in earlier planes."""
        return max(0, -min(self.levels_back))

    @property
    def masked(self) -> bool:
        """Whether a tap reads ahead in a row, and so beyond its end."""
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
        """How many strips a plane has."""
        return -(-self.geometry.shape[-2] // self.geometry.lanes)

    def lines(self, strip: int) -> int:
        """Return how many rows a strip has."""
        return min(self.geometry.lanes, self.geometry.shape[-2] - strip * self.geometry.lanes)

    def levels(self, strip: int) -> int:
        """Return how many levels a strip has."""
        return self.geometry.shape[-1] + self.lag * (self.lines(strip) - 1)

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

        What part p of an odd strip reads is solved when part p of the strip above it is: its parts
        end by as many levels earlier as the last row lags behind. So a thread follows another one
        closely, and is some parts ahead of what the other one has to wait for.
        """
        even = list(range(0, self.levels(0), self.part))
        late, unit = self.lag * (self.lines(0) - 1 + self.above), max(8, self.geometry.lanes)
        first = self.part - -(-late // unit) * unit
        if not self.shared or first <= 0:
            return even, even
        return even, [0, *range(first, self.levels(0), self.part)]

    @functools.cached_property
    def strip_size(self) -> int:
        """Numbers of a strip, or of a part of it, with what it reads."""
        return (self.back + min(self.part, self.levels(0)) + self.ahead) * self.level

    @functools.cached_property
    def planes(self) -> tuple[int, ...]:
        """Planes from one to the next along each of the first axes, with empty ones between."""
        g, strides = self.geometry, list[int]()
        for n, margin in zip(g.shape[-3:0:-1], g.margins[-3:0:-1], strict=True):
            strides.insert(0, (strides[0] if strides else 1) * (n + margin))
        return (*strides, 1) if len(g.shape) > 2 else ()

    def planes_back(self, reach: tuple[int, ...]) -> int:
        """Return how many planes back a tap reads."""
        return sum(o * stride for o, stride in zip(reach, self.planes, strict=False))

    @functools.cached_property
    def slots(self) -> int:
        """How many planes are in the buffer at a time."""
        return 1 + max(map(self.planes_back, self.geometry.reach))

    @functools.cached_property
    def slot_size(self) -> int:
        """Numbers of a plane."""
        return self.strip_size * (self.count if len(self.geometry.shape) > 2 else 1)

    @property
    def size(self) -> int:
        """Numbers of the buffer but for the sums of a pixel."""
        return self.slots * self.slot_size + 2 * self.geometry.lanes

    def place(self, slot: int, strip: int, level: int) -> int:
        """Return where lane 0 of a level is, counted from the first one of a part."""
        start = slot * self.slot_size + strip * self.strip_size
        lane = self.geometry.lanes if self.above else 0
        return start + (self.back + level) * self.level + lane


def possible(g: Geometry) -> bool:
    """Tell whether rows can be the lanes.

    No tap may read below, or further above than there are lanes, and a buffer for whole planes must
    not be too large.
    """
    strips = Strips(g, shared=False)
    ups = [o[-2] for o in g.reach]
    return min(ups) >= 0 and max(ups) <= g.lanes and strips.size * g.itemsize <= _LARGEST


def header(g: Geometry, shared: bool) -> Header:
    """Return what the segments have in common."""
    s, (along, wide) = Strips(g, shared), (g.direction[-1], g.shape[-1])
    skew, down = along * s.lag, g.direction[-2] * wide
    return Header(
        images=1,
        units=s.count if len(g.shape) == 2 else 1,
        line_step=down - skew,
        skew=skew,
        width=wide,
        step=along * s.level,
        channel_step=s.channel_step,
        column_step=s.level,
        above=s.above,
        above_step=-down,
        lag=s.lag,
        along=along,
        wide=wide,
        masked=s.masked,
        spare=s.size,
        size=s.size + g.spare,
    )


def lists(g: Geometry, shared: bool) -> list[TapList]:
    """Return all taps, and how far each reads in the buffer, from a plane in each of the slots."""
    s, found = Strips(g, shared), list[TapList]()
    for slot in range(s.slots):
        earlier = [(slot - s.planes_back(o)) % s.slots for o in g.reach]
        found.append(
            [
                (t, (earlier[t] - slot) * s.slot_size - s.levels_back[t] * s.level - o[-2])
                for t, o in enumerate(g.reach)
            ]
        )
    return found


def masks(g: Geometry) -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
    """Return, for each level, which lanes are inside the grid."""
    s = Strips(g, shared=False)
    column = np.arange(s.levels(0))[:, None] - s.lag * np.arange(g.lanes)
    return ((column >= 0) & (column < g.shape[-1])).astype(np.int8)


def segments(g: Geometry, shared: bool) -> list[list[Segment]]:
    """Return the segments of each unit, in the order of the solve."""
    s = Strips(g, shared)
    if len(g.shape) > 2:
        return [list(_volume(s))]
    units, most = [list(_parts(s, strip)) for strip in range(s.count)], max(map(len, s.starts))
    return [[*parts, *[Segment()] * (most - len(parts))] for parts in units]


def _parts(s: Strips, strip: int) -> Iterator[Segment]:
    """Yield the parts of a strip of a plane."""
    g, levels, starts = s.geometry, s.levels(strip), s.starts[strip % 2]
    before = 0
    for first, end in zip(starts, [*starts[1:], levels], strict=True):
        if first >= levels:
            break
        count = min(end, levels) - first
        needed = min(g.shape[-1], first + count + s.lag * s.above)
        done = first + count - s.lag * (s.lines(strip) - 1)
        back = s.back * s.level
        yield _segment(
            s,
            strip,
            first,
            count,
            clear_count=back if first == 0 else 0,
            move_from=before * s.level,
            move_count=0 if first == 0 else back,
            needed=needed if strip > 0 and s.above else 0,
            done=max(0, done),
        )
        before = count


def _volume(s: Strips) -> Iterator[Segment]:
    """Yield the strips of all planes; of the empty planes between them, what clears a slot."""
    g = s.geometry
    lead, clear = g.shape[:-2], (0, s.slots * s.slot_size)
    number = 0
    for index in itertools.product(*map(range, lead)):
        plane = sum(i * stride for i, stride in zip(index, s.planes, strict=True))
        for empty in range(number, plane):
            yield Segment(clear=empty % s.slots * s.slot_size, clear_count=s.slot_size)
        number = plane + 1
        pairs = zip(index, lead, g.direction, strict=False)
        there = [i if way > 0 else n - 1 - i for i, n, way in pairs]
        memory = int(np.ravel_multi_index(there, lead)) * math.prod(g.shape[-2:])
        for strip in range(s.count):
            start = dict(zip(("clear", "clear_count"), clear, strict=True))
            slot = plane % s.slots
            yield _segment(s, strip, 0, s.levels(strip), slot=slot, memory=memory, **start)
            clear = (0, 0)


def _segment(
    s: Strips,
    strip: int,
    first: int,
    count: int,
    *,
    slot: int = 0,
    memory: int = 0,
    **others: int,
) -> Segment:
    """Return the segment that solves ``count`` levels of a strip, from ``first`` on."""
    g = s.geometry
    (down, along), (height, wide) = g.direction[-2:], g.shape[-2:]
    row = strip * g.lanes
    row = row if down > 0 else height - 1 - row
    in_plane = strip if len(g.shape) > 2 else 0
    origin = s.place(slot, in_plane, 0)
    return Segment(
        memory=memory + row * wide,
        lines=s.lines(strip),
        start=first if along > 0 else wide - first - count,
        count=count,
        place=origin if along > 0 else s.place(slot, in_plane, count - 1),
        at=origin,
        rows=1,
        columns=count,
        lists=slot * (1 + 2 * len(g.reach)),
        keep=first * g.lanes // 8,
        first=strip > 0,
        low=-s.back if first == 0 else 0,
        level=first,
        origin=origin,
        **others,
    )
