"""How a compiled solve goes through an image: which pixels are in the lanes, and what lies where.

A `Geometry` is all that a solve depends on besides values. Three ways lead through it:

- `cpu.lanes.images`: the lanes are images of a batch, pixel after pixel.
- `cpu.lanes.rows`: the lanes are rows of one image. Row l lags behind row l - 1 by so many
  pixels that what it reads is there: the lanes are a wavefront.
- `cpu.lanes.pipeline`: the same without a pause, a lane that is through taking a later row.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from invconv.arrays.stencil import Offset
from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.order import tap_order

Shape = tuple[int, ...]
TapList = list[tuple[int, int]]  # of taps that read something: which one, and how far away
_CACHE = "/sys/devices/system/cpu/cpu0/cache/index2/size"  # of the second level, such as "2048K"


def _band() -> int:
    """Return how many bytes of a buffer stay in the cache, beside images and weights.

    Where it is large, so are the buffers: numbers of an image that follow each other are read the
    quicker, the more of them there are.
    """
    try:
        with open(_CACHE, encoding="ascii") as file:
            size = int(file.read().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):  # not Linux, or a processor that does not say
        size = 0
    return 2**19 if size >= 2**21 else 2**18


BAND = _band()


def blocks_of(channels: int, most: int) -> tuple[int, int]:
    """Return into how many blocks output channels fall, and how many a block has, of ``most``."""
    blocks = -(-channels // most)
    return blocks, -(-channels // blocks)


@dataclass(frozen=True, eq=False)
class Geometry:
    """What a solve depends on besides values, for grids of at least two axes.

    `geometry_of` returns the same object for the same question, so it is compared by identity.

    Attributes
    ----------
    channels : int
    shape : tuple of int
        The grid.
    reach : tuple of offsets
        How many pixels back each tap reads, counted along `direction`, that of the pixel itself
        first.
    order : tuple of int
        Which matrix each of these taps has.
    direction : tuple of int
    lower : bool
        Whether D is lower triangular.
    lanes, most : int
        Of a vector, and how many output channels may be solved at once.
    itemsize : int
        Bytes of a number.
    """

    channels: int
    shape: Shape
    reach: tuple[Offset, ...]
    order: tuple[int, ...]
    direction: tuple[int, ...]
    lower: bool
    lanes: int
    most: int
    itemsize: int

    @functools.cached_property
    def blocks(self) -> int:
        """How many blocks of output channels are solved one after the other."""
        return blocks_of(self.channels, self.most)[0]

    @functools.cached_property
    def block(self) -> int:
        """Output channels of a block."""
        return blocks_of(self.channels, self.most)[1]

    @functools.cached_property
    def single(self) -> bool:
        """Whether one block has all channels."""
        return self.blocks == 1

    @functools.cached_property
    def pixels(self) -> int:
        """Pixels of an image."""
        return math.prod(self.shape)

    @functools.cached_property
    def spare(self) -> int:
        """How many numbers the sums of a pixel are."""
        return self.blocks * self.block * self.lanes

    @functools.cached_property
    def weights(self) -> int:
        """How many numbers the weights are (`invconv.kernels.cpu.weights`)."""
        taps = len(self.reach)
        return self.blocks * self.block * taps * self.channels + self.channels**2 + 1

    @functools.cached_property
    def scratch(self) -> int:
        """How many numbers of room the weights are made in."""
        return self.channels * -(-len(self.reach) * self.channels // self.lanes) * self.lanes

    @functools.cached_property
    def margins(self) -> tuple[int, ...]:
        """How far a tap reads along each axis, either way."""
        return tuple(max(abs(o[a]) for o in self.reach) for a in range(len(self.shape)))


@functools.lru_cache(maxsize=256)
def geometry_of(
    channels: int,
    shape: Shape,
    reach: tuple[Offset, ...],
    direction: tuple[int, ...],
    dilation: tuple[int, ...],
    lower: bool,
    itemsize: int,
    target: Target,
) -> Geometry:
    """Return the geometry of a causal stencil (`kernels.wavefront.CausalStencil`) on a grid."""
    pixels = [tuple(d * o for d, o in zip(dilation, offset, strict=True)) for offset in reach]
    kept = tap_order(pixels, shape)
    offsets = [(0,) * len(shape), *(pixels[t] for t in kept)]
    if len(shape) == 1:  # an image of one row
        shape, direction = (1, *shape), (1, *direction)
        offsets = [(0, *o) for o in offsets]
    return Geometry(
        channels,
        shape,
        tuple(offsets),
        (0, *(1 + t for t in kept)),
        direction,
        lower,
        target.bits // 8 // itemsize,
        target.most_channels,
        itemsize,
    )
