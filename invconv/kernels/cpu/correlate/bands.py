"""The program of a compiled correlation: the lanes are adjacent pixels.

The buffer has, channel by channel, some rows of an image or some small images, surrounded by the
pixels that taps read beyond the grid: zeros, or pixels of the continued image. In flat memory a tap
is a distance, the same for every pixel, so a vector may run on from one row into the next; results
at the positions between rows are not copied out.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from invconv.arrays.stencil import Offset, reaching
from invconv.kernels.cpu.assembly import Ints
from invconv.kernels.cpu.geometry import Shape, blocks_of
from invconv.kernels.primitives import fold

_BAND = 2**18  # bytes of the buffers for whole images, to stay in the cache
_LARGEST = 2**19  # bytes for bands of rows: larger, as rows above and below are copied again
_PADDING = 64  # bytes, so that channels do not lie whole pages apart
_PAGE = 4096


Border = bool | Literal["mirror"]  # zero, periodic, or mirrored pixels beyond a grid


@dataclass(frozen=True)
class Reading:
    """The taps of a correlation that reach a pixel, and the border of its images."""

    shape: Shape  # the grid, of at least two axes
    order: tuple[int, ...]  # indices of the taps that reach a pixel
    offsets: tuple[Offset, ...]  # the offsets of these taps
    wrap: Border


def reading(shape: Shape, offsets: tuple[Offset, ...], wrap: Border) -> Reading | None:
    """Return the reading of taps at some offsets, or None if no tap reaches a pixel."""
    if len(shape) == 1:  # an image of one row
        shape, offsets = (1, *shape), tuple((0, *o) for o in offsets)
    offsets = tuple(fold(o, shape) for o in offsets) if wrap is True else offsets
    order = range(len(offsets)) if wrap == "mirror" else reaching(offsets, shape)
    if not order:
        return None
    return Reading(shape, tuple(order), tuple(offsets[t] for t in order), wrap)


def repeated(i: int, n: int, wrap: Border) -> int:
    """Return the pixel of an axis of n pixels that position i repeats; i itself without wrap."""
    if wrap == "mirror":
        return min(i % (2 * n), 2 * n - 1 - i % (2 * n))
    return i % n if wrap else i


@dataclass(frozen=True)
class Grid:
    """A grid of at least two axes, with margins that taps read beyond it."""

    shape: Shape
    # number of pixels read before the first one and after the last one along each axis
    low: Offset
    high: Offset
    wrap: Border  # continuation of the image there: periodic if True, zeros if False, or mirrored

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
        """Return the copies in, (source, target, count), for rows first to stop of axis 0.

        A source of -1 stands for zeros. Target 0 is the start of row first - low.
        """
        rows = range(first - self.low[0], stop + self.high[0])
        others = zip(self.shape[1:-1], self.low[1:-1], self.high[1:-1], strict=True)
        axes = [rows, *(range(-low, n + high) for n, low, high in others)]
        copies = list[tuple[int, int, int]]()
        for index in itertools.product(*axes):
            target = self.flat((index[0] - rows.start, *self._from_low(index), 0))
            copies += self._row(index, target)
        return copies

    def _from_low(self, index: Offset) -> Iterator[int]:
        return (i + low for i, low in zip(index[1:], self.low[1:-1], strict=True))

    def _row(self, index: Offset, target: int) -> Iterator[tuple[int, int, int]]:
        """Yield the copies in for a row of the last axis, which may be outside the grid."""
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
        """Return the copies out, (source, target, count), for rows first to stop of axis 0."""
        copies = []
        for index in itertools.product(range(first, stop), *map(range, self.shape[1:-1])):
            padded = (index[0] - first + self.low[0], *self._from_low(index), self.low[-1])
            target = int(np.ravel_multi_index(index, self.shape[:-1])) * self.shape[-1]
            copies.append((self.flat(padded), target, self.shape[-1]))
        return copies


# The layout of the matrices of taps in memory: the distances in numbers from one tap's matrix to
# the next, from row to row, and from column to column; and 1 or -1 if only the lower or the upper
# triangle of the first matrix is used, else 0. Other entries are neither read nor written.
Places: TypeAlias = tuple[int, int, int, int]


def of_taps(channels: int) -> Places:
    """Return the places of a contiguous array (T, C, C)."""
    return channels**2, channels, 1, 0


@dataclass(frozen=True)
class Sizes:
    """The first fields of the header of every correlation; 64-bit integers."""

    # as in `invconv.kernels.cpu.program.Header`
    channels: int
    pixels: int
    taps: int
    block: int
    blocks: int
    # number of images in the buffer together, and of bands that an image is cut into
    images: int
    bands: int
    # places in the buffer of the results, of a pixel's sums and of the weights; and its length
    out: int
    spare: int
    weights: int
    size: int
    order: int  # place in the program of the indices of the taps' matrices


@dataclass(frozen=True)
class CorrelationHeader(Sizes):
    """The settings of all bands."""

    image_step: int  # distance in positions from one whole image in the buffer to the next
    channel_step: int  # distance in numbers from channel to channel in the buffer
    # places in the program of the list of taps for `invconv.kernels.cpu.sums`, and of the bands
    taps_read: int
    body: int


@dataclass(frozen=True)
class Band:
    """Rows of an image, or all of them: the copies in and out, and the results."""

    # place in the program and number of the copies in, and of the copies out
    read: int
    reads: int
    written: int
    writes: int
    # the first position that has a result, and the number of positions
    at: int
    positions: int


@dataclass(frozen=True, eq=False)
class CorrelationProgram:
    """The integers that the compiled code reads to run a correlation."""

    numbers: Ints  # the program; the compiled code reads it in place, so it is never edited
    header: Any  # its first numbers; or `invconv.kernels.cpu.correlate.images.ImagesHeader`
    # number of products of a C x C matrix with a pixel for one image, gaps between rows included
    products: int


@functools.lru_cache(maxsize=64)
def correlation_program(
    reading: Reading, channels: int, lanes: int, most: int, itemsize: int
) -> CorrelationProgram:
    """Return the program of a correlation for any batch.

    ``lanes``, ``most`` and ``itemsize`` are as in `invconv.kernels.cpu.geometry.Geometry`.
    """
    shape, kept = reading.shape, reading.order
    axes = list(zip(*reading.offsets, strict=True))
    low, high = (tuple(max(0, *(s * o for o in axis)) for axis in axes) for s in (-1, 1))
    grid = Grid(shape, low, high, reading.wrap)
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
        *itertools.chain(*((i * size, grid.flat(o)) for i, o in enumerate(reading.offsets))),
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
    """Return the number of rows of the first axis in a band, and the header."""
    n, beside = grid.shape[0], grid.low[0] + grid.high[0]
    row = grid.strides[0] * channels * 2 * itemsize  # bytes, read and written
    rows, images = max(1, beside, _LARGEST // row - beside), 1
    if (n + beside) * row <= _LARGEST:
        rows, images = n, max(1, _BAND // ((n + beside) * row))
    image_step = (rows + beside) * grid.strides[0]
    margin = grid.flat(grid.low) + grid.flat(grid.high) + lanes  # for vectors that run beyond
    step = -(-(images * image_step + margin) // lanes) * lanes
    if step * itemsize % _PAGE == 0:
        step += _PADDING // itemsize
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
