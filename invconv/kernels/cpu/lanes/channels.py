"""The lanes are the output channels of a pixel, for few images: the layout of the buffer.

The buffer is that of `images`, but a pixel has the channels of some images, one after the other,
padded to whole vectors. Where a grid has rows that lag behind each other, pixels of one level share
each load of the weights, as do the images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from invconv.kernels.cpu.costs import BESIDE
from invconv.kernels.cpu.geometry import Geometry
from invconv.kernels.cpu.lanes import images
from invconv.kernels.cpu.lanes.images import Window
from invconv.kernels.cpu.program import Parts
from invconv.kernels.order import accumulators

TOGETHER = 8  # pixels, at most, that share a load of the weights
_ROOM = 2**20  # bytes of the buffer: with more rows, more pixels share weights


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
    if count > TOGETHER:
        count = -(-count // 4) * 4
    several = accumulators(g.block, g.single) > 1
    return Vectors(width, count, g.channels if several else 0)


def together(batch: int, workers: int) -> int:
    """Return how many images of a batch share the weights, and a thread."""
    return min(TOGETHER, -(-batch // workers))


def cost(g: Geometry, batch: int, workers: int) -> float:
    """Return the cost of a solve for each channel, in products of a vector with a number.

    Fewer sums than `TOGETHER` wait for each other; y's products wait for nothing.
    """
    v, images = vectors_of(g), together(batch, workers)
    rows = min(g.shape[-2], TOGETHER)
    levels = g.shape[-1] + g.lag * (rows - 1)
    sums = v.count * accumulators(g.block, g.single)
    at_once = sums * images * rows * g.shape[-1] / levels
    waits = max(1.0, TOGETHER / at_once)
    of_vector = 1 + (len(g.reach) - 1) * waits + BESIDE["channels"] / g.channels
    return -(-batch // workers) * g.pixels * v.count * of_vector


def parts(g: Geometry, together: int) -> Parts:
    """Return the parts of a program that solves some images together."""
    v = vectors_of(g)
    window = Window(g, together * v.padded).widened(_ROOM)
    header = replace(
        images.header(window),
        images=together,
        line_step=g.pixels,
        channel_step=v.padded,
        lag=g.lag,
        block=v.padded,
        blocks=1,
        last_row=0,
        last_column=0,
        size=window.size + TOGETHER * v.padded,
    )
    lists = [list(enumerate(images.distances(window)))]  # outside the grid all taps read zeros
    sums = v.width, v.count, v.unrolled
    return Parts(header, lists, images.segments(window), sums, images.places(window))
