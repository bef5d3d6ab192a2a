"""The lanes are images of a batch, or the output channels of a pixel: layout of the buffer.

With images in the lanes a pixel has C vectors. With channels, for few images, it has the channels
of some images, one after the other, padded to whole vectors; where a grid has rows that lag behind
each other, pixels of one level share each load of the weights, as do the images.

The buffer has some slices of the grid along the first axis, with zeros around the pixels of the
other axes; one gap serves the pixels on both its sides. The slices that the taps still read are
moved to the place where the next slices expect them.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from invconv.arrays.stencil import dot
from invconv.kernels.cpu import costs
from invconv.kernels.cpu.geometry import Geometry, Shape, TapList, strides_of
from invconv.kernels.cpu.program import Parts, Segment
from invconv.kernels.order import accumulators


@dataclass(frozen=True)
class Window:
    """Some slices of a grid in the buffer."""

    geometry: Geometry
    pixel: int  # numbers of a pixel
    room: int  # bytes of the slices that are solved at a time, without the slices that they read

    @functools.cached_property
    def slices(self) -> int:
        """The number of slices that are solved at a time."""
        size = self.strides[0] * self.pixel * self.geometry.itemsize
        return max(1, min(self.geometry.shape[0], self.room // size))

    @functools.cached_property
    def strides(self) -> tuple[int, ...]:
        """Pixels from one to the next along each axis."""
        return strides_of(self.geometry.shape, self.geometry.margins)

    @property
    def lead(self) -> int:
        """Pixels before the first slice and after the last that taps may read."""
        return dot(self.geometry.margins[1:], self.strides[1:])

    @property
    def size(self) -> int:
        pixels = 2 * self.lead + (self.slices + self.geometry.margins[0]) * self.strides[0]
        return pixels * self.pixel

    def place(self, index: tuple[int, ...]) -> int:
        """Return the place of a pixel; its slice is counted from the buffer's first."""
        return (self.lead + dot(index, self.strides)) * self.pixel


def parts(g: Geometry) -> Parts:
    """Return the parts of a program with images in the lanes."""
    window = Window(g, g.channels * g.lanes, costs.BAND)
    sums = g.block, g.single
    return Parts(_header(window), _lists(window), _segments(window), sums, _places(window))


def _header(window: Window) -> dict[str, int]:
    g = window.geometry
    last_row, last_column = _last(g)
    return {
        "images": g.lanes,
        "units": 1,
        "line_step": g.channels * g.pixels,
        "width": g.pixels,
        "channel_step": g.lanes,
        "row_step": g.direction[-2] * window.strides[-2] * window.pixel,
        "column_step": g.direction[-1] * window.pixel,
        "last_row": last_row,
        "last_column": last_column,
        "cleared": window.size,
        "spare": window.size,
        "size": window.size + g.spare,
    }


def _places(window: Window) -> tuple[int, ...]:
    """Return the distance of each pixel of a segment from the first one, and a vector of zeros."""
    g = window.geometry
    rows = window.slices if len(g.shape) == 2 else g.shape[-2]
    pixels = itertools.product(range(rows), range(g.shape[-1]))
    apart = [(i * window.strides[-2] + j) * window.pixel for i, j in pixels]
    return *apart, *[0] * g.lanes


def _distances(window: Window) -> list[int]:
    g = window.geometry
    back = list(map(operator.mul, g.direction, window.strides))
    return [-dot(back, reach) * window.pixel for reach in g.reach]


def _lists(window: Window) -> list[TapList]:
    """Return the lists of (tap, distance) inside the grid, of the first rows and columns each."""
    g, far = window.geometry, _distances(window)
    last = _last(g)
    if last == (0, 0):
        return [list(enumerate(far))]
    return [
        [(t, far[t]) for t, o in enumerate(g.reach) if o[-2] <= row and o[-1] <= column]
        for row, column in itertools.product(*(range(n + 1) for n in last))
    ]


def _last(g: Geometry) -> tuple[int, int]:
    """Return the last row and column with lists of their own."""
    last = tuple(max(o[a] for o in g.reach) for a in (-2, -1))
    return (last[0], last[1]) if math.prod(n + 1 for n in last) <= costs.LISTS else (0, 0)


def _segments(window: Window) -> list[list[Segment]]:
    g, lead, solved = window.geometry, window.lead * window.pixel, list[Segment]()
    size = window.strides[0] * window.pixel  # of a slice
    target, source = [lead, lead + window.slices * size][:: g.direction[0]]
    count = g.margins[0] * size
    before = {"clear": target, "clear_count": count}
    for first in range(0, g.shape[0], window.slices):
        band = _band(window, first)
        solved += [replace(next(band), **before), *band]
        # solved slices move to where the next band reads them
        before = {"move_to": target, "move_from": source, "move_count": count}
    return [solved]


def _band(window: Window, first: int) -> Iterator[Segment]:
    """Yield the segments of the slices from ``first`` on, counted along the direction."""
    g = window.geometry
    slices = min(window.slices, g.shape[0] - first)
    downwards = g.direction[0] > 0
    top = first if downwards else g.shape[0] - first - slices  # in memory
    shift = (g.margins[0] if downwards else window.slices - slices) - top  # to the buffer
    rows, starts = slices, list[Shape]([(top, 0)])
    if len(g.shape) > 2:
        rows = g.shape[-2]
        axes = [range(top, top + slices), *map(range, g.shape[1:-2])]
        ordered = (axis[::s] for axis, s in zip(axes, g.direction, strict=False))
        starts = [(*index, 0, 0) for index in itertools.product(*ordered)]
    ends = zip(g.direction[-2:], (rows, g.shape[-1]), window.strides[-2:], strict=True)
    to_first = sum((n - 1) * stride for s, n, stride in ends if s < 0) * window.pixel
    for start in starts:
        place = window.place((start[0] + shift, *start[1:]))
        yield Segment(
            memory=int(np.ravel_multi_index(start, g.shape)),
            count=rows * g.shape[-1],
            place=place,
            at=place + to_first,
            top=first if len(g.shape) == 2 else 0,
            rows=rows,
            columns=g.shape[-1],
        )


@dataclass(frozen=True)
class Vectors:
    """The vectors of a pixel of one image."""

    width: int  # numbers of a vector: as many as the processor has, or 8 for few channels
    count: int
    unrolled: int  # the number of channels, if the sums are written out for it, or zero

    @property
    def padded(self) -> int:
        """Channels of a pixel in the buffer."""
        return self.width * self.count


def vectors_of(g: Geometry) -> Vectors:
    """Return the vectors of a pixel; their number has divisors, so that some are summed at once."""
    width = min(g.lanes, 8 if g.channels <= 8 else g.lanes)
    count = -(-g.channels // width)
    if count > costs.TOGETHER:
        count = -(-count // 4) * 4
    return Vectors(width, count, g.channels if accumulators(g.block, g.single) > 1 else 0)


def parts_by_channels(g: Geometry, together: int) -> Parts:
    """Return the parts of a program with channels in the lanes, of some images together."""
    v = vectors_of(g)
    window = Window(g, together * v.padded, costs.MANY_ROWS)
    header = _header(window) | {
        "images": together,
        "line_step": g.pixels,
        "channel_step": v.padded,
        "lag": g.lag,
        "block": v.padded,
        "blocks": 1,
        "last_row": 0,
        "last_column": 0,
        "size": window.size + costs.TOGETHER * v.padded,
    }
    lists = [list(enumerate(_distances(window)))]  # outside the grid all taps read zeros
    return Parts(header, lists, _segments(window), (v.width, v.count, v.unrolled), _places(window))
