"""The lanes are rows of one image, a strip of rows at a time.

With lag w, pixel (l, j) of a strip is lane l of level j + w l: every tap reads an earlier level. A
level has C times two vectors. The second vector has the strip's rows; the first one, before it, has
the rows above that the taps read, so that a tap that reads u rows above reads u lanes before.

Strips follow each other, and a wide strip is solved some levels at a time. With more than two axes,
the planes of the last two follow each other; the buffer then has whole planes, as many as taps
read, in slots that are used in turn.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from invconv.arrays.stencil import dot
from invconv.kernels.cpu import costs
from invconv.kernels.cpu.geometry import Geometry, TapList, strides_of
from invconv.kernels.cpu.program import Parts, Segment


@dataclass(frozen=True)
class Strips:
    """Strips of rows of an image in the buffer."""

    geometry: Geometry
    # whether several threads solve the strips of an image: then a strip has parts, and the next
    # strip may go on after each part
    shared: bool = False

    @functools.cached_property
    def levels_back(self) -> list[int]:
        g = self.geometry
        return [g.lag * o[-2] + o[-1] for o in g.reach]

    @functools.cached_property
    def back(self) -> int:
        return max(self.levels_back)

    @functools.cached_property
    def level(self) -> int:
        g = self.geometry
        return g.channels * (2 if g.above else 1) * g.lanes

    @property
    def count(self) -> int:
        return -(-self.geometry.shape[-2] // self.geometry.lanes)

    def lines(self, strip: int) -> int:
        return min(self.geometry.lanes, self.geometry.shape[-2] - strip * self.geometry.lanes)

    def levels(self, strip: int) -> int:
        return self.geometry.shape[-1] + self.geometry.lag * (self.lines(strip) - 1)

    @functools.cached_property
    def part(self) -> int:
        """Levels that are solved at a time: a multiple of the lanes and of 8, or all."""
        g, most = self.geometry, self.levels(0)
        if len(g.shape) > 2:
            return most
        unit = max(8, g.lanes)
        wanted = costs.BAND // (self.level * g.itemsize)
        if self.shared:
            wanted = min(wanted, -(-most // costs.STRIP_PARTS))
        return max(2 * unit, wanted // unit * unit)

    @functools.cached_property
    def starts(self) -> tuple[list[int], list[int]]:
        """Return the first level of each part of an even strip, and of an odd one.

        All pixels that part p of an odd strip reads are solved as soon as part p of the strip above
        is, since parts of odd strips end earlier, by the lag of the last row. So a thread follows
        the thread of the strip above closely, and that thread, which takes a later strip, rarely
        waits.
        """
        g, even = self.geometry, list(range(0, self.levels(0), self.part))
        late, unit = g.lag * (self.lines(0) - 1 + g.above), max(8, g.lanes)
        first = self.part - -(-late // unit) * unit
        if not self.shared or first <= 0:
            return even, even
        return even, [0, *range(first, self.levels(0), self.part)]

    @functools.cached_property
    def strip_size(self) -> int:
        """Numbers of a strip, or of a part of it, with the levels that it reads."""
        ahead = max(0, -min(self.levels_back))  # in earlier planes
        return (self.back + min(self.part, self.levels(0)) + ahead) * self.level

    @functools.cached_property
    def planes(self) -> tuple[int, ...]:
        """Planes from one to the next along each of the first axes, with empty ones between."""
        return strides_of(self.geometry.shape[:-2], self.geometry.margins[:-2])

    @functools.cached_property
    def slots(self) -> int:
        return 1 + max(dot(reach, self.planes) for reach in self.geometry.reach)

    @functools.cached_property
    def slot_size(self) -> int:
        return self.strip_size * (self.count if len(self.geometry.shape) > 2 else 1)

    @property
    def size(self) -> int:
        """Numbers of the buffer without the sums of a pixel."""
        return self.slots * self.slot_size + 2 * self.geometry.lanes

    def place(self, slot: int, strip: int, level: int) -> int:
        """Return the place of lane 0 of a level, which is counted from the first one of a part."""
        start = slot * self.slot_size + strip * self.strip_size + (self.back + level) * self.level
        return start + (self.geometry.lanes if self.geometry.above else 0)


def possible(g: Geometry) -> bool:
    """Tell whether taps read few rows above and none below, and the buffer is not too large."""
    ups = [o[-2] for o in g.reach]
    if g.shape[-1] == 1 or min(ups) < 0 or max(ups) > g.lanes:  # of one column: a signal
        return False
    return Strips(g).size * g.itemsize <= costs.STRIPS


def parts(g: Geometry, shared: bool) -> Parts:
    """Return the parts of a program; if ``shared``, several threads may solve an image."""
    s, sums = Strips(g, shared), (g.block, g.single)
    masked = any(o[-1] < 0 for o in g.reach)  # a tap reads ahead in a row, and beyond its end
    column = np.arange(s.levels(0) * masked)[:, None] - g.lag * np.arange(g.lanes)
    masks = ((column >= 0) & (column < g.shape[-1])).tobytes()  # of lanes in the grid, by level
    return Parts(_header(s, masked), _lists(s), _segments(s), sums, masks=masks)


def _header(s: Strips, masked: bool) -> dict[str, int]:
    g = s.geometry
    along, wide = g.direction[-1], g.shape[-1]
    skew, down = along * g.lag, g.direction[-2] * wide
    return {
        "images": 1,
        "units": s.count if len(g.shape) == 2 else 1,
        "line_step": down - skew,
        "skew": skew,
        "width": wide,
        "step": along * s.level,
        "channel_step": s.level // g.channels,
        "column_step": s.level,
        "above": g.above,
        "above_step": -down,
        "lag": g.lag,
        "along": along,
        "masked": masked,
        "spare": s.size,
        "size": s.size + g.spare,
    }


def _lists(s: Strips) -> list[TapList]:
    """Return, for a plane in each slot, the list of (tap, distance in the buffer)."""

    def distance(tap: int, slot: int) -> int:
        reach = s.geometry.reach[tap]
        earlier = (slot - dot(reach, s.planes)) % s.slots
        return (earlier - slot) * s.slot_size - s.levels_back[tap] * s.level - reach[-2]

    taps = range(len(s.geometry.reach))
    return [[(t, distance(t, slot)) for t in taps] for slot in range(s.slots)]


def _segments(s: Strips) -> list[list[Segment]]:
    if len(s.geometry.shape) > 2:
        return [list(_volume(s))]
    units, most = [list(_parts(s, strip)) for strip in range(s.count)], max(map(len, s.starts))
    return [[*parts, *[Segment()] * (most - len(parts))] for parts in units]


def _parts(s: Strips, strip: int) -> Iterator[Segment]:
    g, levels, starts = s.geometry, s.levels(strip), s.starts[strip % 2]
    before = 0
    for first, end in zip(starts, [*starts[1:], levels], strict=True):
        if first >= levels:
            break
        count = min(end, levels) - first
        needed = min(g.shape[-1], first + count + g.lag * g.above)
        done = first + count - g.lag * (s.lines(strip) - 1)
        back = s.back * s.level
        yield _segment(
            s,
            strip,
            first,
            count,
            clear_count=back if first == 0 else 0,
            move_from=before * s.level,
            move_count=0 if first == 0 else back,
            needed=needed if strip > 0 and g.above else 0,
            done=max(0, done),
        )
        before = count


def _volume(s: Strips) -> Iterator[Segment]:
    """Yield the segments of all planes' strips; an empty plane between them clears its slot."""
    g = s.geometry
    lead, clear, number = g.shape[:-2], s.slots * s.slot_size, 0
    for index in itertools.product(*map(range, lead)):
        plane = dot(index, s.planes)
        for empty in range(number, plane):
            yield Segment(clear=empty % s.slots * s.slot_size, clear_count=s.slot_size)
        number = plane + 1
        pairs = zip(index, lead, g.direction, strict=False)
        there = [i if way > 0 else n - 1 - i for i, n, way in pairs]
        memory = int(np.ravel_multi_index(there, lead)) * math.prod(g.shape[-2:])
        for strip in range(s.count):
            levels, slot = s.levels(strip), plane % s.slots
            yield _segment(s, strip, 0, levels, slot, memory, clear_count=clear)
            clear = 0


def _segment(
    s: Strips, strip: int, first: int, count: int, slot: int = 0, memory: int = 0, **others: int
) -> Segment:
    """Return the segment that solves ``count`` levels of a strip, from ``first`` on."""
    g = s.geometry
    (down, along), (height, wide) = g.direction[-2:], g.shape[-2:]
    row = strip * g.lanes if down > 0 else height - 1 - strip * g.lanes
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
        **others,
    )
