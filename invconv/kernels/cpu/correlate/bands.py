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
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from invconv.arrays.stencil import Offset, reaching, seen
from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.cpu.geometry import Shape, blocks_of, strides_of
from invconv.kernels.cpu.program import Assembled, numbers_of, tap_list
from invconv.kernels.primitives import fold

_BAND = 2**18  # bytes of the buffers for whole images, to stay in the cache
_LARGEST = 2**19  # bytes for bands of rows: larger, as rows above and below are copied again
_PADDING = 64  # bytes, so that channels do not lie whole pages apart
_PAGE = 4096

Border = bool | Literal["symmetric"]  # zero, periodic, or mirrored pixels beyond a grid


@dataclass(frozen=True)
class Reading:
    """The taps of a correlation that reach a pixel, and what they read beyond a grid."""

    shape: Shape  # the grid, of at least two axes
    order: tuple[int, ...]  # indices of the taps that reach a pixel
    offsets: tuple[Offset, ...]  # the offsets of these taps
    wrap: Border  # continuation of the image: periodic if True, zeros if False, or mirrored

    @functools.cached_property
    def low(self) -> Offset:
        """Pixels read before the first one along each axis."""
        return tuple(max(0, *(-o for o in axis)) for axis in zip(*self.offsets, strict=True))

    @functools.cached_property
    def high(self) -> Offset:
        """Pixels read after the last one along each axis."""
        return tuple(max(0, *axis) for axis in zip(*self.offsets, strict=True))

    @functools.cached_property
    def strides(self) -> tuple[int, ...]:
        """Positions from one pixel to the next along each axis."""
        return strides_of(self.shape, map(operator.add, self.low, self.high))

    def flat(self, index: Offset) -> int:
        """Return the distance between two positions."""
        return sum(i * stride for i, stride in zip(index, self.strides, strict=True))

    def read(self, first: int, stop: int) -> list[tuple[int, int, int]]:
        """Return the copies in, (place in memory, place in the buffer, count).

        They are for rows first to stop of axis 0. Place -1 in memory stands for zeros; place 0 in
        the buffer is the start of row first - low.
        """
        rows = range(first - self.low[0], stop + self.high[0])
        others = zip(self.shape[1:-1], self.low[1:-1], self.high[1:-1], strict=True)
        axes = [rows, *(range(-low, n + high) for n, low, high in others)]
        copies = list[tuple[int, int, int]]()
        for index in itertools.product(*axes):
            target = self.flat((index[0] - rows.start, *self._from_low(index), self.low[-1]))
            pairs = zip(index, self.shape, strict=False)
            there = tuple(repeated(i, n, self.wrap) for i, n in pairs)
            if all(0 <= i < n for i, n in zip(there, self.shape, strict=False)):
                source = int(np.ravel_multi_index(there, self.shape[:-1])) * self.shape[-1]
                copies += [(source + i, target + j, count) for i, j, count in self._along]
            elif not 0 <= index[0] < self.shape[0]:  # other rows are never written
                copies.append((-1, target, self.shape[-1]))
        return copies

    def _from_low(self, index: Offset) -> Iterator[int]:
        return (i + low for i, low in zip(index[1:], self.low[1:-1], strict=True))

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
            padded = (index[0] - first + self.low[0], *self._from_low(index), self.low[-1])
            outside = int(np.ravel_multi_index(index, self.shape[:-1])) * self.shape[-1]
            copies.append((outside, self.flat(padded), self.shape[-1]))
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


# The layout of the matrices of taps in memory: the distances in numbers from one tap's matrix to
# the next, from row to row, and from column to column; and 1 or -1 if only the lower or the upper
# triangle of the first matrix is used, else 0. Other entries are neither read nor written.
Places: TypeAlias = tuple[int, int, int, int]


def of_taps(channels: int) -> Places:
    """Return the places of a contiguous array (T, C, C)."""
    return channels**2, channels, 1, 0


@dataclass(frozen=True)
class CorrelationHeader:
    """The settings of all bands, or of all runs of pixels (`correlate.images`)."""

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
    body, copies = list[Band](), list[tuple[int, int, int]]()
    for first in range(0, reading.shape[0], rows):
        band = first, min(reading.shape[0], first + rows)
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
    rows, images = max(1, beside, _LARGEST // row - beside), 1
    if (n + beside) * row <= _LARGEST:
        rows, images = n, max(1, _BAND // ((n + beside) * row))
    lanes = target.lanes(itemsize)
    image_step = (rows + beside) * grid.strides[0]
    margin = grid.flat(grid.low) + grid.flat(grid.high) + lanes  # for vectors that run beyond
    step = -(-(images * image_step + margin) // lanes) * lanes
    if step * itemsize % _PAGE == 0:
        step += _PADDING // itemsize
    return rows, CorrelationHeader(
        **sizes(channels, channels * step + margin + lanes, len(grid.order), target, itemsize),
        pixels=math.prod(grid.shape),
        images=images,
        pieces=-(-n // rows),
        image_step=image_step,
        channel_step=step,
    )


def sizes(channels: int, out: int, taps: int, target: Target, itemsize: int) -> dict[str, int]:
    """Return some fields of a header, for results from place ``out`` of the buffer on."""
    blocks, block = blocks_of(channels, target.most_channels)
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
