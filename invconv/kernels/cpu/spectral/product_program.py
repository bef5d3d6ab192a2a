"""The program of a compiled product with a matrix per frequency: 64-bit integers.

The lanes are images. A channel's plane, a vector a pixel, is transformed in place, axis by axis, by
products with real matrices. Then some pairs of results are replaced by their difference and their
sum. After that every frequency is one number, or two: a real and an imaginary part.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from invconv.arrays.stencil import dot
from invconv.kernels.cpu import costs
from invconv.kernels.cpu.geometry import Shape
from invconv.kernels.cpu.program import Assembled, Floats, Ints, numbers_of, tap_list


@dataclass(frozen=True, eq=False)
class RealTransform:
    """The transform of images on a grid to frequencies, in real arithmetic, in place."""

    there: tuple[Floats, ...]  # shape (n, n): the matrix along each axis
    back: tuple[Floats, ...]  # its inverse but for a power of two (`scale`)
    # shape (P, 2): Flat places (u, v) that become u - v and u + v, one pair after the other. The
    # way back does the same with v and u exchanged, from the last pair to the first, and doubles
    # them.
    pairs: Ints
    # shape (E, 2): places of the real and the imaginary part of each number; of real numbers, which
    # come first, -1
    places: Ints
    frequencies: Ints  # shape (E,): the frequency of each number
    scale: Floats  # shape (E,): the factor of each number before the way back

    @property
    def reals(self) -> int:
        return int(np.count_nonzero(self.places[:, 1] < 0))


@dataclass(frozen=True)
class Blocks:
    """Blocks of outputs; the sums of a block are in registers."""

    count: int
    block: int  # outputs of a block

    @property
    def size(self) -> int:
        """The number of outputs of all blocks, padding included."""
        return self.count * self.block

    def packed(self, taps: Sequence[Floats]) -> Floats:
        """Return taps (N, outputs, inputs) in the layout of `invconv.kernels.cpu.sums`.

        The result has the shape (N, blocks, taps, inputs, outputs of a block).
        """
        number, outputs, inputs = taps[0].shape
        padded = np.zeros((len(taps), number, inputs, self.count, self.block), taps[0].dtype)
        padded.reshape(len(taps), number, inputs, -1)[..., :outputs] = np.swapaxes(taps, 2, 3)
        return padded.transpose(1, 3, 0, 2, 4)


@dataclass(frozen=True)
class Header:
    """The settings of all units. Distances and places are in the buffer unless said otherwise."""

    channels: int
    pixels: int
    channel_step: int
    step: int  # from the first half, where images enter, to the second, from which they leave
    spare: int  # place of a pixel's sums
    size: int  # of the buffer
    stages: int  # of a transform
    back: int  # place of the way back's matrices among the matrices of the axes
    pairs: int
    outputs: int  # number of real and imaginary parts
    sums: int  # the address of the function that sums over channels
    # places in the program of the stages, of the pairs, of the outputs' records of `OUTPUT`
    # numbers, and of the list of one tap for `invconv.kernels.cpu.sums`
    axes: int = 0
    paired: int = 0
    multiplied: int = 0
    one: int = 0


@dataclass(frozen=True)
class Stage:
    """The transform of a plane along one axis: lines in rows of adjacent columns."""

    channels: int  # points of the axis
    channel_step: int  # from one point to the next
    rows: int
    row_step: int
    columns: int
    weights: int  # place of its matrix among the matrices of the transforms
    sums: int  # the address of the function that sums over points


OUTPUT = 8  # numbers of the record of a real or an imaginary part: see `_outputs`


def program(
    channels: int,
    shape: Shape,
    transform: RealTransform,
    blocks: Sequence[Blocks],
    sums: Sequence[int],
    lanes: int,
    itemsize: int,
) -> Assembled[Header]:
    """Return the program.

    For each axis, and then for the channels, there are the ``blocks`` of the sums, and the address
    of the function that computes these ``sums``.
    """
    pixels = math.prod(shape)
    plane = costs.apart(pixels * lanes, itemsize)
    spare = 2 * channels * plane
    header = Header(
        channels=channels,
        pixels=pixels,
        channel_step=plane,
        step=channels * plane,
        spare=spare,
        size=spare + max(b.size for b in blocks) * lanes,
        stages=len(shape),
        back=dot(shape, (b.size for b in blocks)),
        pairs=len(transform.pairs),
        outputs=transform.places.size - transform.reals,
        sums=sums[-1],
    )
    sections = {
        "axes": numbers_of(_stages(shape, blocks, sums, lanes)),
        "paired": transform.pairs.reshape(-1) * lanes,
        "multiplied": list(_outputs(channels, transform, blocks[-1], lanes)),
        "one": tap_list([(0, 0)], 1, 0),
    }
    return Assembled.of(header, sections)


def _stages(
    shape: Shape, blocks: Sequence[Blocks], sums: Sequence[int], lanes: int
) -> Iterator[Stage]:
    weights = 0
    for axis, n in enumerate(shape):
        rows, rest = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        yield Stage(n, rest * lanes, rows, n * rest * lanes, rest, weights, sums[axis])
        weights += n * blocks[axis].size


def _outputs(channels: int, transform: RealTransform, blocks: Blocks, lanes: int) -> Iterator[int]:
    """Yield each output's record: place, number of taps, place of weights, and list of taps."""
    weights = 0
    for real, imag in (transform.places * lanes).tolist():
        parts = [real] if imag < 0 else [real, imag]
        for here in parts:
            taps = [(t, there - here) for t, there in enumerate(parts)]
            yield from (here, len(parts), weights, *tap_list(taps, 2, blocks.block * channels))
            weights += len(parts) * blocks.size * channels
