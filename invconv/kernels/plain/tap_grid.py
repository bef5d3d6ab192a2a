"""The regular grid of taps that holds a stencil: a dilated kernel, for a library's convolution."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from invconv.arrays.namespaces import Shape
from invconv.arrays.stencil import Offset, reaching
from invconv.kernels.primitives import fold


@dataclass(frozen=True)
class TapGrid:
    """Evenly spaced offsets along each axis, zero and all of a stencil's among them."""

    taps: tuple[int, ...]  # that reach a pixel, in the order of `places`
    places: tuple[int, ...]  # the flat index of each of these taps in the grid
    low: Offset  # the first offset along each axis, at most 0
    high: Offset  # the last one, at least 0
    spacing: Offset  # distance between the grid's taps
    size: Shape  # number of the grid's taps


@functools.lru_cache(maxsize=256)
def grid_of(offsets: tuple[Offset, ...], wrap: bool, shape: Shape) -> TapGrid | None:
    """Return the grid of the taps that reach a pixel, or None if no tap does."""
    if wrap:
        offsets = tuple(fold(offset, shape) for offset in offsets)
    taps = tuple(reaching(offsets, shape))
    if not taps:
        return None
    along = list(zip(*(offsets[t] for t in taps), strict=True))
    low, high = (tuple(end(0, *axis) for axis in along) for end in (min, max))
    spacing = tuple(math.gcd(*axis) or 1 for axis in along)
    size = tuple((h - lo) // s + 1 for h, lo, s in zip(high, low, spacing, strict=True))
    places = []
    for t in taps:
        place = 0
        for o, lo, s, n in zip(offsets[t], low, spacing, size, strict=True):
            place = place * n + (o - lo) // s
        places.append(place)
    return TapGrid(taps, tuple(places), low, high, spacing, size)
