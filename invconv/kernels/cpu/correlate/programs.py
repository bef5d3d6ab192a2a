"""The programs of compiled correlations: the lanes are adjacent pixels, or the images of a batch.

With pixels in the lanes the buffer has, channel by channel, some rows of an image or some small
images, surrounded by the pixels that taps read beyond the grid. In flat memory a tap is a distance,
the same for every pixel, so a vector may run on from one row into the next; results at the
positions between rows are not copied out.

With images in the lanes, as in a solve, the buffer has C vectors for each pixel. Pixels that read
at equal distances share a list of taps, without those that would read a zero beyond the grid. So no
lane is idle and no product is with a zero; but images are transposed on the way in and out.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from invconv.arrays.stencil import Offset, dot, reaching, seen
from invconv.kernels.cpu import costs
from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.cpu.geometry import Shape, TapList, blocks_of, strides_of
from invconv.kernels.cpu.program import Assembled, numbers_of, tap_list
from invconv.kernels.primitives import fold

Border = bool | Literal["symmetric"]  # zero, periodic, or mirrored pixels beyond a grid


@dataclass(frozen=True)
class Reading:
    """The taps of a correlation that reach a pixel, and what they read beyond a grid."""

    shape: Shape  # the grid, of at least two axes
    order: tuple[int, ...]  # indices of the taps that reach a pixel
    offsets: tuple[Offset, ...]  # the offsets of these taps
    wrap: Border  # continuation of the image: periodic if True, zeros if False, or mirrored

    low: Offset = field(init=False)  # pixels read before the first one along each axis
    high: Offset = field(init=False)  # and after the last one
    strides: tuple[int, ...] = field(init=False)  # positions to the next pixel along each axis

    def __post_init__(self) -> None:
        axes = list(zip(*self.offsets, strict=True))
        low, high = (tuple(max(0, *(s * o for o in axis)) for axis in axes) for s in (-1, 1))
        strides = strides_of(self.shape, map(operator.add, low, high))
        vars(self).update(low=low, high=high, strides=strides)

    def flat(self, index: Offset) -> int:
        return dot(index, self.strides)

    def _place(self, index: Offset, first: int) -> int:
        """Return the place of a row of pixels in a buffer that begins with row ``first - low``."""
        return self.flat((index[0] - first, *index[1:], 0)) + self.flat(self.low)

    def read(self, first: int, stop: int) -> list[tuple[int, int, int]]:
        """Return the copies in: (place in memory or -1 for zeros, place in the buffer, count)."""
        rows = range(first - self.low[0], stop + self.high[0])
        others = zip(self.shape[1:-1], self.low[1:-1], self.high[1:-1], strict=True)
        axes = [rows, *(range(-low, n + high) for n, low, high in others)]
        copies = list[tuple[int, int, int]]()
        for index in itertools.product(*axes):
            target = self._place(index, first)
            pairs = zip(index, self.shape, strict=False)
            there = tuple(repeated(i, n, self.wrap) for i, n in pairs)
            if all(0 <= i < n for i, n in zip(there, self.shape, strict=False)):
                source = int(np.ravel_multi_index(there, self.shape[:-1])) * self.shape[-1]
                copies += [(source + i, target + j, count) for i, j, count in self._along]
            elif not 0 <= index[0] < self.shape[0]:  # other rows are never written
                copies.append((-1, target, self.shape[-1]))
        return copies

    @functools.cached_property
    def _along(self) -> list[tuple[int, int, int]]:
        """The copies in for a row of the last axis, from its first pixel on."""
        n, low, high = self.shape[-1], self.low[-1], self.high[-1]
        copies = [(0, 0, n)]
        if self.wrap == "symmetric":
            beyond = (*range(-low, 0), *range(n, n + high))
            copies += [(repeated(i, n, self.wrap), i, 1) for i in beyond]
        elif self.wrap:
            copies += [(n - low, -low, low), (0, n, high)]
        return [copy for copy in copies if copy[2]]

    def written(self, first: int, stop: int) -> list[tuple[int, int, int]]:
        """Return the copies out for rows first to stop of axis 0, in the same form."""
        copies = []
        for index in itertools.product(range(first, stop), *map(range, self.shape[1:-1])):
            outside = int(np.ravel_multi_index(index, self.shape[:-1])) * self.shape[-1]
            copies.append((outside, self._place(index, first), self.shape[-1]))
        return copies


def repeated(i: int, n: int, wrap: Border) -> int:
    """Return the pixel of an axis of n pixels that position i repeats; i itself without wrap."""
    return int(seen("periodic" if wrap is True else wrap, i, n)[0]) if wrap else i


def reading(shape: Shape, offsets: tuple[Offset, ...], wrap: Border) -> Reading | None:
    """Return the reading of taps at some offsets, or None if no tap reaches a pixel."""
    if len(shape) == 1:  # an image of one row
        shape, offsets = (1, *shape), tuple((0, *o) for o in offsets)
    offsets = tuple(fold(o, shape) for o in offsets) if wrap is True else offsets
    order = range(len(offsets)) if wrap == "symmetric" else reaching(offsets, shape)
    if not order:
        return None
    return Reading(shape, tuple(order), tuple(offsets[t] for t in order), wrap)


# The matrices of taps in memory: the distances in numbers from one tap's matrix to the next, from
# row to row and from column to column; and 1 or -1 if only the lower or the upper triangle of the
# first matrix is used, else 0. Other entries are neither read nor written.
Places: TypeAlias = tuple[int, int, int, int]


def of_taps(channels: int) -> Places:
    """Return the places of a contiguous array (T, C, C)."""
    return channels**2, channels, 1, 0


@dataclass(frozen=True)
class CorrelationHeader:
    """The settings of all bands, or of all runs of pixels."""

    channels: int  # the first five are as in `invconv.kernels.cpu.program.Header`
    pixels: int
    taps: int
    block: int
    blocks: int
    images: int  # in the buffer together
    pieces: int  # bands or runs that an image is cut into
    channel_step: int  # numbers from channel to channel in the buffer
    out: int  # place in the buffer of the results
    spare: int  # of a pixel's sums
    weights: int
    size: int  # of the buffer
    image_step: int = 0  # positions from one whole image in the buffer to the next
    # places in the program of the indices of the taps' matrices, of the lists of taps for
    # `invconv.kernels.cpu.sums`, of the bands or runs, and of the bands' copies
    order: int = 0
    lists: int = 0
    body: int = 0
    copies: int = 0


@dataclass(frozen=True)
class Band:
    """Rows of an image, or all of them: the copies in and out, and the results."""

    read: int  # first place among the copies of those in
    reads: int
    written: int  # and of those out
    writes: int
    at: int  # the first position that has a result
    positions: int


@dataclass(frozen=True, eq=False)
class CorrelationProgram(Assembled[Any]):
    """The program of a correlation."""

    # number of products of a C x C matrix with a pixel for one image, gaps between rows included
    products: int


@functools.lru_cache(maxsize=64)
def correlation_program(
    reading: Reading, channels: int, target: Target, itemsize: int
) -> CorrelationProgram:
    """Return the program of a correlation for any batch."""
    rows, header = _header(reading, channels, target, itemsize)
    body, copies, height = list[Band](), list[tuple[int, int, int]](), reading.shape[0]
    for first in range(0, height, rows):
        band = first, min(height, first + rows)
        read, written = reading.read(*band), reading.written(*band)
        place, at, end = 3 * len(copies), written[0][1], written[-1][1] + written[-1][2]
        body.append(Band(place, len(read), place + 3 * len(read), len(written), at, end - at))
        copies += [*read, *written]
    distances = list(enumerate(map(reading.flat, reading.offsets)))
    sections = {
        "order": reading.order,
        "lists": tap_list(distances, header.taps, header.block * channels),
        "body": numbers_of(body),
        "copies": np.ravel(copies),
    }
    return CorrelationProgram.of(header, sections, header.pieces * header.image_step * header.taps)


def _header(
    grid: Reading, channels: int, target: Target, itemsize: int
) -> tuple[int, CorrelationHeader]:
    """Return the number of rows of the first axis in a band, and the header."""
    n, beside = grid.shape[0], grid.low[0] + grid.high[0]
    row = grid.strides[0] * channels * 2 * itemsize  # bytes, read and written
    rows, images = max(1, beside, costs.BANDS // row - beside), 1
    if (n + beside) * row <= costs.BANDS:
        rows, images = n, max(1, costs.BAND // ((n + beside) * row))
    lanes = target.lanes(itemsize)
    image_step = (rows + beside) * grid.strides[0]
    margin = grid.flat(grid.low) + grid.flat(grid.high) + lanes  # for vectors that run beyond
    step = costs.apart(-(-(images * image_step + margin) // lanes) * lanes, itemsize)
    return rows, CorrelationHeader(
        **_sizes(channels, channels * step + margin + lanes, len(grid.order), target, itemsize),
        pixels=math.prod(grid.shape),
        images=images,
        pieces=-(-n // rows),
        image_step=image_step,
        channel_step=step,
    )


def _sizes(channels: int, out: int, taps: int, target: Target, itemsize: int) -> dict[str, int]:
    blocks, block = blocks_of(channels, costs.SUMS[target.registers])
    weights = 2 * out + blocks * block * target.lanes(itemsize)
    return {
        "channels": channels,
        "taps": taps,
        "block": block,
        "blocks": blocks,
        "out": out,
        "spare": 2 * out,
        "weights": weights,
        "size": weights + blocks * block * taps * channels,
    }


@dataclass(frozen=True)
class Run:
    """Adjacent pixels that share a list of taps."""

    at: int  # place of the first pixel in the buffer
    columns: int
    taps: int  # place of their list of taps among all lists


def images_program(
    read: Reading, channels: int, target: Target, itemsize: int
) -> CorrelationProgram | None:
    """Return the program of a correlation for any batch, or None if the cache is too small."""
    taps, lanes, pixels = len(read.order), target.lanes(itemsize), math.prod(read.shape)
    step = channels * lanes
    if 2 * pixels * step * itemsize > costs.GROUP:
        return None
    fields = _sizes(channels, pixels * step, taps, target, itemsize)
    lists, body, products = dict[tuple[int, ...], int](), list[Run](), 0
    for at, columns, distances in _runs(read):
        there = [(t, d * step) for t, d in distances]
        few = tuple(tap_list(there, taps, fields["block"] * channels))
        products += columns * len(there)
        body.append(Run(at * step, columns, lists.setdefault(few, len(lists) * len(few))))
        if len(lists) * len(few) > costs.LIST_NUMBERS:
            return None
    together = list(itertools.chain(*lists))
    sections = {"order": read.order, "lists": together, "body": numbers_of(body)}
    settings = {"pixels": pixels, "images": lanes, "pieces": len(body), "channel_step": lanes}
    return CorrelationProgram.of(CorrelationHeader(**fields, **settings), sections, products)


def _runs(read: Reading) -> Iterator[tuple[int, int, TapList]]:
    """Yield each run: its first pixel, number of pixels, and taps that read inside the grid."""
    axes = [_distances(read, axis) for axis in range(len(read.shape))]
    columns = [(distances, len(list(same))) for distances, same in itertools.groupby(axes[-1])]
    at = 0
    for outer in itertools.product(*axes[:-1]):
        for last, count in columns:
            inside = [t for t in last if all(t in distances for distances in outer)]
            yield at, count, [(t, last[t] + sum(d[t] for d in outer)) for t in inside]
            at += count


def _distances(read: Reading, axis: int) -> list[dict[int, int]]:
    """Return, for each pixel of an axis, the distance along it of each tap that reads inside."""
    n, stride = read.shape[axis], math.prod(read.shape[axis + 1 :])
    there = [[repeated(i + o[axis], n, read.wrap) for o in read.offsets] for i in range(n)]
    return [
        {t: (j - i) * stride for t, j in enumerate(pixels) if 0 <= j < n}
        for i, pixels in enumerate(there)
    ]
