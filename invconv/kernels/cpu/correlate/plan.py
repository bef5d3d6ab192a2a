"""How a compiled correlation goes through images: the lanes are pixels that follow each other.

The buffer has, channel by channel, some rows of an image or some small images, with the pixels that
taps read beyond the grid around them: zeros, or those of the periodic continuation. In flat memory
a tap is a distance, the same for every pixel, so a vector may run on from one row into the next;
what it finds between them is not copied out.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from invconv.arrays.stencil import Offset
from invconv.kernels.cpu.assembly import Ints
from invconv.kernels.cpu.correlate.reading import Border, Reading, repeated
from invconv.kernels.cpu.plan import Shape, blocks_of

_BAND = 2**18  # bytes of the buffers that stay in the cache, of images that are whole in them
_LARGEST = 2**19  # of those that are not: what rows read besides is copied more than once
_APART = 64  # bytes that keep channels from lying whole pages apart
_PAGE = 4096


@dataclass(frozen=True)
class Grid:
    """A grid of at least two axes, with what taps read beyond it.

    Attributes
    ----------
    shape : tuple of int
    low, high : tuple of int
        How many pixels are read before the first one and after the last one along each axis.
    wrap : bool or "mirror"
        Whether they are those of a periodic continuation, of a mirrored one, or zero.
    """

    shape: Shape
    low: Offset
    high: Offset
    wrap: Border

    @property
    def strides(self) -> tuple[int, ...]:
        """Positions from one pixel to the next along each axis."""
        strides, sides = [1], zip(self.shape, self.low, self.high, strict=True)
        for n, low, high in list(sides)[:0:-1]:
            strides.insert(0, strides[0] * (low + n + high))
        return tuple(strides)

    def flat(self, index: Offset) -> int:
        """Return the distance between two positions."""
        return sum(i * stride for i, stride in zip(index, self.strides, strict=True))

    def read(self, first: int, stop: int) -> list[tuple[int, int, int]]:
        """Return what is copied in for rows first to stop of axis 0: (source, target, count).

        A source of -1 are zeros. The first position is that of row first - low.
        """
        rows = range(first - self.low[0], stop + self.high[0])
        others = zip(self.shape[1:-1], self.low[1:-1], self.high[1:-1], strict=True)
        axes = [rows, *(range(-low, n + high) for n, low, high in others)]
        found = list[tuple[int, int, int]]()
        for index in itertools.product(*axes):
            target = self.flat((index[0] - rows.start, *self._from_low(index), 0))
            found += self._row(index, target)
        return found

    def _from_low(self, index: Offset) -> Iterator[int]:
        return (i + low for i, low in zip(index[1:], self.low[1:-1], strict=True))

    def _row(self, index: Offset, target: int) -> Iterator[tuple[int, int, int]]:
        """Yield what is copied for a row of the last axis, which may be outside the grid."""
        n, low, high = self.shape[-1], self.low[-1], self.high[-1]
        inside = all(0 <= i < m for i, m in zip(index, self.shape, strict=False))
        if not inside and not self.wrap:
            if not 0 <= index[0] < self.shape[0]:  # other rows are never written
                yield -1, target + low, n
            return
        index = tuple(repeated(i, m, self.wrap) for i, m in zip(index, self.shape, strict=False))
        source = int(np.ravel_multi_index(index, self.shape[:-1])) * n
        yield source, target + low, n
        if self.wrap == "mirror":
            for i in (*range(-low, 0), *range(n, n + high)):
                yield source + repeated(i, n, self.wrap), target + low + i, 1
            return
        if self.wrap and low:
            yield source + n - low, target, low
        if self.wrap and high:
            yield source, target + low + n, high

    def written(self, first: int, stop: int) -> list[tuple[int, int, int]]:
        """Return what is copied out for the same rows: (source, target, count)."""
        found = []
        for index in itertools.product(range(first, stop), *map(range, self.shape[1:-1])):
            padded = (index[0] - first + self.low[0], *self._from_low(index), self.low[-1])
            target = int(np.ravel_multi_index(index, self.shape[:-1])) * self.shape[-1]
            found.append((self.flat(padded), target, self.shape[-1]))
        return found


# Where the matrices of taps are in memory: the numbers from one matrix to that of the next tap,
# from row to row, and from column to column; and 1 or -1 where only the lower or the upper triangle
# of the first matrix counts, or 0. Other entries are neither read nor written.
Places: TypeAlias = tuple[int, int, int, int]


def of_taps(channels: int) -> Places:
    """Return the places of a contiguous array (T, C, C)."""
    return channels**2, channels, 1, 0


@dataclass(frozen=True)
class Sizes:
    """What the headers of all correlations begin with; 64-bit integers.

    Attributes
    ----------
    channels, pixels, taps, block, blocks
        As in `invconv.kernels.cpu.program.Header`.
    images, bands : int
        Images that are in the buffer together, and the bands that one is cut into.
    out, spare, weights, size : int
        Where results, the sums of a pixel and the weights are, and how long the buffer is.
    order : int
        Where, in the program, it says which matrix each tap has.
    """

    channels: int
    pixels: int
    taps: int
    block: int
    blocks: int
    images: int
    bands: int
    out: int
    spare: int
    weights: int
    size: int
    order: int


@dataclass(frozen=True)
class CorrelationHeader(Sizes):
    """What all bands have in common.

    Attributes
    ----------
    image_step : int
        Positions from one image that is whole in the buffer to the next.
    channel_step : int
        Numbers from channel to channel in the buffer.
    taps_read, body : int
        Where, in the program, the list of taps for `invconv.kernels.cpu.sums` is, and what the
        bands are.
    """

    image_step: int
    channel_step: int
    taps_read: int
    body: int


@dataclass(frozen=True)
class Band:
    """Rows of an image, or all: where its copies are in the program, and its results.

    Attributes
    ----------
    read, reads, written, writes : int
        Where the copies in and out start in the program, and how many there are.
    at, positions : int
        The first position that has a result, and how many follow.
    """

    read: int
    reads: int
    written: int
    writes: int
    at: int
    positions: int


@dataclass(frozen=True, eq=False)
class CorrelationProgram:
    """What a correlation goes by.

    Attributes
    ----------
    numbers : array of int64
        Read by the compiled code, so it is never edited.
    header : CorrelationHeader
        Its first numbers; or `invconv.kernels.cpu.correlate.images.ImagesHeader`.
    products : int
        Of a C x C matrix with a pixel, which an image takes, gaps between rows included.
    """

    numbers: Ints
    header: Any
    products: int


@functools.lru_cache(maxsize=64)
def correlation_program(
    found: Reading, channels: int, lanes: int, most: int, itemsize: int
) -> CorrelationProgram:
    """Return the program of a correlation for any batch.

    Parameters
    ----------
    found : Reading
    channels : int
    lanes, most, itemsize
        As in `invconv.kernels.cpu.plan.Geometry`.
    """
    shape, kept = found.shape, found.order
    axes = list(zip(*found.offsets, strict=True))
    low, high = (tuple(max(0, *(s * o for o in axis)) for axis in axes) for s in (-1, 1))
    grid = Grid(shape, low, high, found.wrap)
    rows, header = _header(grid, channels, len(kept), lanes, most, itemsize)
    body, pieces = list[Band](), list[tuple[int, int, int]]()
    start = header.body + header.bands * len(fields(Band))
    for first in range(0, shape[0], rows):
        band = first, min(shape[0], first + rows)
        read, written = grid.read(*band), grid.written(*band)
        place = start + 3 * len(pieces)
        at, end = written[0][0], written[-1][0] + written[-1][2]
        body.append(Band(place, len(read), place + 3 * len(read), len(written), at, end - at))
        pieces += [*read, *written]
    size = header.block * channels  # weights of a tap and a block
    numbers = [
        *astuple(header),
        *kept,
        len(kept),
        *itertools.chain(*((i * size, grid.flat(o)) for i, o in enumerate(found.offsets))),
        *itertools.chain(*map(astuple, body)),
        *itertools.chain(*pieces),
    ]
    array = np.asarray(numbers, np.int64)
    array.setflags(write=False)
    products = header.bands * header.image_step * header.taps
    return CorrelationProgram(array, header, products)


def _header(
    grid: Grid, channels: int, taps: int, lanes: int, most: int, itemsize: int
) -> tuple[int, CorrelationHeader]:
    """Return how many rows of the first axis a band has, and what all bands have in common."""
    n, beside = grid.shape[0], grid.low[0] + grid.high[0]
    row = grid.strides[0] * channels * 2 * itemsize  # bytes, read and written
    rows, images = max(1, beside, _LARGEST // row - beside), 1
    if (n + beside) * row <= _LARGEST:
        rows, images = n, max(1, _BAND // ((n + beside) * row))
    image_step = (rows + beside) * grid.strides[0]
    margin = grid.flat(grid.low) + grid.flat(grid.high) + lanes  # vectors at the ends read beyond
    step = -(-(images * image_step + margin) // lanes) * lanes
    if step * itemsize % _PAGE == 0:
        step += _APART // itemsize
    blocks, block = blocks_of(channels, most)
    out = channels * step + margin + lanes
    spare = 2 * out
    weights = spare + blocks * block * lanes
    first = len(fields(CorrelationHeader))
    return rows, CorrelationHeader(
        channels=channels,
        pixels=math.prod(grid.shape),
        taps=taps,
        block=block,
        blocks=blocks,
        images=images,
        image_step=image_step,
        channel_step=step,
        out=out,
        spare=spare,
        weights=weights,
        size=weights + blocks * block * taps * channels,
        bands=-(-n // rows),
        order=first,
        taps_read=first + taps,
        body=first + taps + 1 + 2 * taps,
    )
