"""The geometry of a compiled solve: shapes, taps and the processor, but no values."""

import functools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from invconv.arrays.stencil import Sweep
from invconv.kernels.cpu import costs
from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.order import tap_order

Shape = tuple[int, ...]
TapList = list[tuple[int, int]]  # (index, distance) of each tap that reads inside the grid


def blocks_of(channels: int, most: int) -> tuple[int, int]:
    """Return the number of blocks of output channels, and a block's channels, at most ``most``."""
    blocks = -(-channels // most)
    return blocks, -(-channels // blocks)


def strides_of(shape: Shape, margins: Iterable[int]) -> tuple[int, ...]:
    """Return the positions from one pixel to the next along each axis, with margins between."""
    sides = [n + margin for n, margin in zip(shape, margins, strict=True)]
    return tuple(math.prod(sides[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Geometry(Sweep):
    """A sweep over a grid of at least two axes, in pixels; the first tap is the pixel itself."""

    # `geometry_of` returns the same object for the same arguments
    __eq__, __hash__ = object.__eq__, object.__hash__

    channels: int
    order: tuple[int, ...]  # the index of each tap's matrix
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

    def __post_init__(self) -> None:
        margins = tuple(max(map(abs, along)) for along in zip(*self.reach, strict=True))
        vars(self).update(
            single=self.blocks == 1,
            pixels=math.prod(self.shape),
            spare=self.blocks * self.block * self.lanes,
            scratch=self.channels * -(-len(self.reach) * self.channels // self.lanes) * self.lanes,
            margins=margins,
            above=margins[-2],
        )


@functools.lru_cache(maxsize=256)
def geometry_of(channels: int, sweep: Sweep, itemsize: int, target: Target) -> Geometry:
    """Return the geometry of a causal stencil on a grid."""
    kept, ndim = tap_order(sweep), len(sweep.shape)
    pixels = [tuple(map(operator.mul, sweep.dilation, sweep.reach[t])) for t in kept]
    axes = [a for a, n in enumerate(sweep.shape) if n > 1]  # no tap reads along the others
    missing = max(0, 2 - len(axes))  # a signal is an image of many rows

    def along(each: Sequence[int], other: int) -> tuple[int, ...]:
        return (*(each[a] for a in axes), *[other] * missing)

    blocks, block = blocks_of(channels, costs.SUMS[target.registers])
    return Geometry(
        tuple(along(o, 0) for o in ((0,) * ndim, *pixels)),
        along(sweep.direction, 1),
        along((1,) * ndim, 1),
        sweep.lower,
        along(sweep.shape, 1),
        channels=channels,
        order=(0, *(1 + t for t in kept)),
        blocks=blocks,
        block=block,
        lanes=target.lanes(itemsize),
        itemsize=itemsize,
    )
