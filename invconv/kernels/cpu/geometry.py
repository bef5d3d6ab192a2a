"""The geometry of a compiled solve: shapes, taps and the processor, but no values."""

import functools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field

from invconv.arrays.stencil import Offset, Sweep
from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.order import tap_order

Shape = tuple[int, ...]
TapList = list[tuple[int, int]]  # (index, distance) of each tap that reads inside the grid

BAND = 2**18  # bytes of a buffer that stay in the cache, beside images and weights


def blocks_of(channels: int, most: int) -> tuple[int, int]:
    """Return the number of blocks of output channels, and a block's channels, at most ``most``."""
    blocks = -(-channels // most)
    return blocks, -(-channels // blocks)


def strides_of(shape: Shape, margins: Iterable[int]) -> tuple[int, ...]:
    """Return the positions from one pixel to the next along each axis, with margins between."""
    sides = [n + margin for n, margin in zip(shape, margins, strict=True)]
    return tuple(math.prod(sides[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True, eq=False)
class Geometry:
    """Settings of a solve, without values, for grids of at least two axes.

    `geometry_of` returns the same object for the same arguments, so it is compared by identity.
    """

    channels: int
    shape: Shape  # the grid
    # how many pixels back each tap reads, counted along `direction`; the pixel itself first
    reach: tuple[Offset, ...]
    order: tuple[int, ...]  # the index of each tap's matrix
    direction: tuple[int, ...]
    lower: bool  # whether D is lower triangular
    blocks: int  # of output channels, which are solved one after the other
    block: int  # channels of a block
    lanes: int  # of a vector
    itemsize: int  # bytes of a number

    single: bool = field(init=False)  # whether one block has all channels
    pixels: int = field(init=False)  # of an image
    spare: int = field(init=False)  # numbers of the sums of a pixel
    scratch: int = field(init=False)  # numbers of memory in which the weights are computed
    margins: tuple[int, ...] = field(init=False)  # the farthest that taps read along each axis
    above: int = field(init=False)  # rows above that taps read at most
    # pixels by which a row lags behind the row above it, so that what it reads is solved: pixel j
    # of row l is at level j + lag l, and reads pixels of earlier levels alone
    lag: int = field(init=False)

    def __post_init__(self) -> None:
        taps = [o for o in self.reach if not any(o[:-2]) and o[-2] > 0]
        margins = tuple(max(abs(o[a]) for o in self.reach) for a in range(len(self.shape)))
        vars(self).update(
            single=self.blocks == 1,
            pixels=math.prod(self.shape),
            spare=self.blocks * self.block * self.lanes,
            scratch=self.channels * -(-len(self.reach) * self.channels // self.lanes) * self.lanes,
            margins=margins,
            above=margins[-2],
            lag=max([0, *(-((o[-1] - 1) // o[-2]) for o in taps)]),
        )


@functools.lru_cache(maxsize=256)
def geometry_of(channels: int, sweep: Sweep, itemsize: int, target: Target) -> Geometry:
    """Return the geometry of a causal stencil on a grid."""
    shape, direction = sweep.shape, sweep.direction
    pixels = [tuple(map(operator.mul, sweep.dilation, offset)) for offset in sweep.reach]
    kept = tap_order(pixels, shape)
    offsets = [(0,) * len(shape), *(pixels[t] for t in kept)]
    axes = [a for a, n in enumerate(shape) if n > 1]  # no tap reads along the others
    missing = max(0, 2 - len(axes))  # a signal is an image of many rows
    shape = *(shape[a] for a in axes), *[1] * missing
    direction = *(direction[a] for a in axes), *[1] * missing
    offsets = [(*(o[a] for a in axes), *[0] * missing) for o in offsets]
    return Geometry(
        channels,
        shape,
        tuple(offsets),
        (0, *(1 + t for t in kept)),
        direction,
        sweep.lower,
        *blocks_of(channels, target.most_channels),
        target.lanes(itemsize),
        itemsize,
    )
