"""The pixels that a correlation reads, and the continuation of images beyond the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from invconv.arrays.stencil import Offset, reaching
from invconv.kernels.cpu.geometry import Shape
from invconv.kernels.primitives import fold

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
