"""Which pixels a correlation reads, and what is beyond the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from invconv.arrays.stencil import Offset, reaching
from invconv.kernels.cpu.plan import Shape
from invconv.kernels.primitives import fold

Border = bool | Literal["mirror"]  # zero, periodic, or mirrored pixels beyond a grid


@dataclass(frozen=True)
class Reading:
    """Which pixels a correlation reads.

    Attributes
    ----------
    shape : tuple of int
        The grid, of at least two axes.
    order : tuple of int
        The taps that reach a pixel.
    offsets : tuple of offsets
        Theirs.
    wrap : bool or "mirror"
    """

    shape: Shape
    order: tuple[int, ...]
    offsets: tuple[Offset, ...]
    wrap: Border


def reading(shape: Shape, offsets: tuple[Offset, ...], wrap: Border) -> Reading | None:
    """Return what taps at some offsets read, or None where none reaches a pixel."""
    if len(shape) == 1:  # an image of one row
        shape, offsets = (1, *shape), tuple((0, *o) for o in offsets)
    offsets = tuple(fold(o, shape) for o in offsets) if wrap is True else offsets
    order = range(len(offsets)) if wrap == "mirror" else reaching(offsets, shape)
    if not order:
        return None
    return Reading(shape, tuple(order), tuple(offsets[t] for t in order), wrap)


def repeated(i: int, n: int, wrap: Border) -> int:
    """Return the pixel that position i of an axis of n pixels repeats; itself without wrap."""
    if wrap == "mirror":
        return min(i % (2 * n), 2 * n - 1 - i % (2 * n))
    return i % n if wrap else i
