"""The lanes are rows of one image, a strip at a time: the segments of a solve.

`strips` has the layout of the buffer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from invconv.kernels.cpu.geometry import Geometry, TapList
from invconv.kernels.cpu.lanes.strips import Strips
from invconv.kernels.cpu.program import Header, Parts, Segment

_LARGEST = 2**26  # bytes of a buffer


def possible(g: Geometry) -> bool:
    """Tell whether the lanes can be rows.

    No tap may read a row below, or more rows above than there are lanes, and a buffer for whole
    planes must not be too large.
    """
    strips = Strips(g, shared=False)
    ups = [o[-2] for o in g.reach]
    if g.shape[-1] == 1:  # a signal
        return False
    return min(ups) >= 0 and max(ups) <= g.lanes and strips.size * g.itemsize <= _LARGEST


def parts(g: Geometry, shared: bool) -> Parts:
    """Return the parts of a program; if ``shared``, several threads may solve an image."""
    top = header(g, shared)
    kept = masks(g).tobytes() if top.masked else b""
    return Parts(top, lists(g, shared), segments(g, shared), (g.block, g.single), masks=kept)


def header(g: Geometry, shared: bool) -> Header:
    """Return the header of the program."""
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
    """Return, for a plane in each slot, the list of (tap, distance in the buffer)."""
    s, by_slot = Strips(g, shared), list[TapList]()
    for slot in range(s.slots):
        earlier = [(slot - s.planes_back(o)) % s.slots for o in g.reach]
        by_slot.append(
            [
                (t, (earlier[t] - slot) * s.slot_size - s.levels_back[t] * s.level - o[-2])
                for t, o in enumerate(g.reach)
            ]
        )
    return by_slot


def masks(g: Geometry) -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
    """Return, for each level, the mask of the lanes inside the grid."""
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
    """Yield the segments of all planes' strips; an empty plane between them clears its slot."""
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
        entered=count,
        left=count,
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
