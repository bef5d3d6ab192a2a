"""The numbers that a compiled product with a matrix a frequency goes by: 64-bit integers.

The lanes are images. A channel's plane, a vector a pixel, is transformed in place, axis by axis, by
products with real matrices. Some pairs of the results then become their difference and their sum,
after which every frequency is one number, or two: a real and an imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np

from invconv.kernels.cpu.assembly import Ints
from invconv.kernels.cpu.plan import Shape

Floats = np.ndarray[Any, Any]

_APART = 64  # bytes that keep planes from lying whole pages apart
_PAGE = 4096


@dataclass(frozen=True, eq=False)
class RealTransform:
    """How images on a grid are transformed to frequencies, in real arithmetic, in place.

    Attributes
    ----------
    there, back : tuple of array, shape (n, n)
        What multiplies each axis, and what undoes it but for a power of two (`scale`).
    pairs : array, shape (P, 2)
        Places (u, v), flat, that become u - v and u + v, one pair after the other. Twice the way
        back is the same with v and u, from the last pair to the first.
    places : array, shape (E, 2)
        Where the real and the imaginary part of a number are; -1 for the latter of real numbers,
        which come first.
    frequencies : array, shape (E,)
        Which frequency each number is of.
    scale : array, shape (E,)
        What it is multiplied by before the way back.
    """

    there: tuple[Floats, ...]
    back: tuple[Floats, ...]
    pairs: Ints
    places: Ints
    frequencies: Ints
    scale: Floats

    @property
    def reals(self) -> int:
        """How many numbers are real."""
        return int(np.count_nonzero(self.places[:, 1] < 0))


@dataclass(frozen=True)
class Blocks:
    """How so many outputs are summed up: in blocks, whose sums are in registers.

    Attributes
    ----------
    count, block : int
        Blocks, and outputs of a block.
    """

    count: int
    block: int

    @staticmethod
    def of(outputs: int, most: int) -> Blocks:
        """Return as few blocks as there can be, as long as each other."""
        count = -(-outputs // most)
        return Blocks(count, -(-outputs // count))

    @staticmethod
    def along(points: int, most: int) -> Blocks:
        """Return blocks of 8 or 16, for which code is made once for axes of any length."""
        few = -(-points // 8)
        many = -(-points // 16)
        return Blocks(many, 16) if most >= 16 and 5 * 2 * many <= 6 * few else Blocks(few, 8)

    @property
    def size(self) -> int:
        """How many outputs there is room for."""
        return self.count * self.block

    def packed(self, taps: Sequence[Floats]) -> Floats:
        """Lay out matrices as `invconv.kernels.cpu.sums` reads them.

        Parameters
        ----------
        taps : sequence of array, shape (N, outputs, inputs)

        Returns
        -------
        array, shape (N, blocks, taps, inputs, outputs of a block)
        """
        number, outputs, inputs = taps[0].shape
        shape = number, self.count, len(taps), inputs, self.block
        found = np.zeros(shape, taps[0].dtype)
        for b, first in enumerate(range(0, outputs, self.block)):
            for t, matrices in enumerate(taps):
                rows = matrices[:, first : first + self.block].swapaxes(1, 2)
                found[:, b, t, :, : rows.shape[2]] = rows
        return found


@dataclass(frozen=True)
class Header:
    """What all units have in common.

    Attributes
    ----------
    channels, pixels : int
    plane, step : int
        In the buffer: from channel to channel, and from its first half, where images enter, to the
        second, from which they leave.
    spare, size : int
        Where the sums of a pixel have room, and how long the buffer is.
    stages, axes, back : int
        How many stages (`Stage`) a transform has, where they are in the program, and where the
        matrices of the way back are among those of the axes.
    pairs, paired : int
        How many pairs there are, and where.
    outputs, multiplied : int
        How many real and imaginary parts there are, and where it says how each is made
        (`invconv.kernels.cpu.spectral.driver`).
    places, one : int
        Where the list of `invconv.kernels.cpu.copies` is, and that of one tap, of
        `invconv.kernels.cpu.sums`.
    sums : int
        The address of the function that sums up channels.
    """

    channels: int
    pixels: int
    plane: int
    step: int
    spare: int
    size: int
    stages: int
    axes: int
    back: int
    pairs: int
    paired: int
    outputs: int
    multiplied: int
    places: int
    one: int
    sums: int


@dataclass(frozen=True)
class Stage:
    """The transform of a plane along one axis.

    Attributes
    ----------
    points, apart : int
        Of the axis, and numbers from one to the next.
    rows, row_step, columns : int
        Lines along the axis: so many rows of columns that follow each other.
    weights : int
        Where its matrix is among those of the transforms.
    sums : int
        The address of the function that sums up points.
    """

    points: int
    apart: int
    rows: int
    row_step: int
    columns: int
    weights: int
    sums: int


OUTPUT = 8  # numbers that say how a real or an imaginary part is made


def program(
    channels: int,
    shape: Shape,
    transform: RealTransform,
    blocks: Sequence[Blocks],
    sums: Sequence[int],
    lanes: int,
    itemsize: int,
) -> tuple[Header, Ints]:
    """Return the header, and all numbers.

    Parameters
    ----------
    channels : int
    shape : tuple of int
        The grid.
    transform : RealTransform
    blocks, sums : sequence
        Of each axis, and then of the channels: how they are summed up, and the address of the
        function that does it.
    lanes, itemsize : int
    """
    pixels = math.prod(shape)
    plane = pixels * lanes
    plane += _APART // itemsize * (plane * itemsize % _PAGE == 0)
    spare = 2 * channels * plane
    stages = list(_stages(shape, blocks, sums, lanes))
    parts: list[Any] = [
        [n for stage in stages for n in astuple(stage)],
        transform.pairs.reshape(-1) * lanes,
        list(_outputs(channels, transform, blocks[-1], lanes)),
        np.arange(pixels + lanes) * lanes,  # a square of the copy may end beyond the last pixel
        [1, 0, 0],
    ]
    starts = np.cumsum([len(fields(Header)), *map(len, parts)])
    header = Header(
        channels=channels,
        pixels=pixels,
        plane=plane,
        step=channels * plane,
        spare=spare,
        size=spare + max(b.size for b in blocks) * lanes,
        stages=len(shape),
        axes=int(starts[0]),
        back=sum(n * b.size for n, b in zip(shape, blocks, strict=False)),
        pairs=len(transform.pairs),
        paired=int(starts[1]),
        outputs=len(parts[2]) // OUTPUT,
        multiplied=int(starts[2]),
        places=int(starts[3]),
        one=int(starts[4]),
        sums=sums[-1],
    )
    numbers = np.concatenate([np.asarray(p, np.int64) for p in (astuple(header), *parts)])
    numbers.setflags(write=False)
    return header, numbers


def _stages(
    shape: Shape, blocks: Sequence[Blocks], sums: Sequence[int], lanes: int
) -> Iterator[Stage]:
    weights = 0
    for axis, n in enumerate(shape):
        rest = math.prod(shape[axis + 1 :])
        rows = math.prod(shape[:axis])
        yield Stage(n, rest * lanes, rows, n * rest * lanes, rest, weights, sums[axis])
        weights += n * blocks[axis].size


def _outputs(channels: int, transform: RealTransform, blocks: Blocks, lanes: int) -> Iterator[int]:
    """Yield, of each output: its place, taps, weights, and the list of the taps that it sums."""
    matrix, weights = blocks.size * channels, 0
    next_tap = blocks.block * channels  # in a block's weights
    for real, imag in (transform.places * lanes).tolist():
        if imag < 0:
            yield from (real, 1, weights, 1, 0, 0, 0, 0)
            weights += matrix
            continue
        for here in (real, imag):
            yield from (here, 2, weights, 2, 0, real - here, next_tap, imag - here)
            weights += 2 * matrix
