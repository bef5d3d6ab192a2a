"""The layout of a causal solve: each front is in one column of a flat, padded image.

Let all directions be +1 and all dilations 1: `native.images` flips and splits the image so. Pixel p
belongs to the front level(p) = slope . p; the pixels of a front do not depend on each other. Along
one axis, the line, the slope is 1. The lines lie one after the other in flat memory, with zeros
between them, and line i, in two dimensions, starts at i pitch. With

    pitch = columns + slope[i],    q, r = divmod(level, columns),

pixel (i, j) is at i pitch + j = (i + q) columns + r. So in rows of ``columns`` numbers a front is
part of one column, r, from row q on, and so are the pixels that a tap reads for it. Transposed,
each is one block of memory: nothing is gathered. With more axes every axis has a pitch: a whole
number of rows plus its slope.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Shape
from invconv.arrays.stencil import Offset
from invconv.kernels.wavefront import CausalStencil

_ALIGNED = 8  # numbers: XLA transposes rows of multiples several times as fast


@dataclass(frozen=True)
class Geometry:
    """Settings of a solve, without values; hashable, so that JAX compiles once for each.

    Attributes
    ----------
    lower, reach, direction, dilation, slope
        As in `invconv.kernels.wavefront.CausalStencil`.
    shape : tuple of int
        The grid.
    """

    lower: bool
    reach: tuple[Offset, ...]
    direction: tuple[int, ...]
    dilation: tuple[int, ...]
    slope: tuple[int, ...]
    shape: Shape

    @classmethod
    def of(cls, causal: CausalStencil, shape: Shape) -> Geometry:
        """Return the geometry of a stencil on a grid."""
        c = causal
        return cls(c.lower, c.reach, c.direction, c.dilation, c.slope, tuple(shape))

    def transpose(self) -> Geometry:
        """Return the geometry of the transposed operator."""
        flipped = tuple(-s for s in self.direction)
        return Geometry(not self.lower, self.reach, flipped, self.dilation, self.slope, self.shape)

    @property
    def coarse(self) -> Shape:
        """The grid of each residue class modulo the dilation, which are independent images."""
        return tuple(-(-n // d) for n, d in zip(self.shape, self.dilation, strict=True))

    @property
    def line(self) -> int:
        """The axis along which a front advances: the longest axis with slope 1."""
        return max(
            (a for a, w in enumerate(self.slope) if w == 1), key=lambda a: (self.coarse[a], a)
        )

    @property
    def others(self) -> list[int]:
        """The other axes."""
        return [a for a in range(len(self.shape)) if a != self.line]

    @property
    def levels(self) -> int:
        """The number of fronts."""
        return 1 + sum(w * (n - 1) for w, n in zip(self.slope, self.coarse, strict=True))

    def margin(self, axis: int) -> int:
        """Return the number of zeros between the pixels of an axis and the next ones."""
        return max((abs(offset[axis]) for offset in self.reach), default=0)


@dataclass(frozen=True)
class Places:
    """The layout of a grid's pixels in flat memory, counted in array elements.

    Attributes
    ----------
    geometry : Geometry
    columns : int
        Numbers of a row.
    pitches : tuple of int
        For each axis of the grid, the distance from a pixel to the next.
    lead : int
        Zeros before the first pixel: the farthest distance that a tap reads back.
    """

    geometry: Geometry
    columns: int
    pitches: tuple[int, ...]
    lead: int

    @classmethod
    def of(cls, geometry: Geometry) -> Places:
        """Return the layout of a grid that needs the least memory."""
        g = geometry
        least = g.coarse[g.line] + g.margin(g.line) - sum(g.slope[a] for a in g.others[-1:])
        step = _ALIGNED if least > 8 * _ALIGNED else 1
        least = step * math.ceil(max(1, least) / step)
        layouts = (cls._in_rows_of(g, least + i * step) for i in range(_ALIGNED))
        return min(layouts, key=lambda places: places.rows * places.columns)

    @classmethod
    def _in_rows_of(cls, geometry: Geometry, columns: int) -> Places:
        g = geometry
        pitches = {g.line: 1}
        inner = g.coarse[g.line] + g.margin(g.line)
        for axis in reversed(g.others):
            rows = max(1, math.ceil((inner - g.slope[axis]) / columns))  # lines share no row
            pitches[axis] = rows * columns + g.slope[axis]
            inner = (g.coarse[axis] + g.margin(axis)) * pitches[axis]
        places = cls(g, columns, tuple(pitches[a] for a in range(len(g.shape))), 0)
        return replace(places, lead=max((places.back(o) for o in g.reach), default=0))

    def back(self, offset: Offset) -> int:
        """Return the distance that a tap reads back."""
        return sum(p * o for p, o in zip(self.pitches, offset, strict=True))

    def front(self, level: Any) -> tuple[Any, Any]:
        """Return (row, column) of a front's first number."""
        place = self.lead + level
        return place // self.columns, place % self.columns

    def earlier(self, front: tuple[Any, Any], offset: Offset) -> tuple[Any, Any]:
        """Return (row, column) of the first number that a tap reads for a front."""
        (row, column), (rows, columns) = front, divmod(self.back(offset), self.columns)
        column = column - columns
        borrowed = column >> 31  # -1 where it is negative; a division is a step of its own to XLA
        return row - rows + borrowed, column - self.columns * borrowed

    @property
    def strides(self) -> list[int]:
        """The number of rows from a line to the next along each other axis, in one front."""
        g = self.geometry
        return [(self.pitches[a] - g.slope[a]) // self.columns for a in g.others]

    @property
    def count(self) -> int:
        """The number of rows from the first line of a front to the last."""
        g = self.geometry
        lines = (g.coarse[a] - 1 for a in g.others)
        return 1 + sum(s * n for s, n in zip(self.strides, lines, strict=True))

    @property
    def rows(self) -> int:
        """The number of rows that hold all numbers that are read and written."""
        g = self.geometry
        last = self.front(g.levels - 1)
        read = max(last[0], *(self.earlier(last, o)[0] for o in g.reach)) + self.count
        pixels = 1 + self.back(tuple(n - 1 for n in g.coarse))
        return int(max(read, math.ceil((self.lead + pixels) / self.columns)))

    def levels(self, batch: int) -> tuple[Any, Any]:
        """Return, for each row of a front, the level at which its line begins, and its length.

        Both broadcast to (1, count, batch x residues). A row without a line begins beyond the last
        level.
        """
        g = self.geometry
        residues = list(np.ndindex(g.dilation))
        others = np.asarray(g.others, int)
        coarse, slope = (np.asarray(n)[others] for n in (g.coarse, g.slope))
        lines = np.indices(coarse).reshape(len(others), math.prod(coarse))
        rows = np.asarray(self.strides, int) @ lines
        first = np.full((self.count, len(residues)), g.levels, np.int32)
        length = np.empty(len(residues), np.uint32)
        for r, residue in enumerate(residues):
            size = -(-(np.asarray(g.shape) - residue) // g.dilation)
            length[r] = max(0, size[g.line])
            there = (lines < size[others, None]).all(axis=0)
            first[rows[there], r] = slope @ lines[:, there]
        if len(residues) == 1:
            return first[None], length[None, None]
        return np.tile(first, (1, 1, batch)), np.tile(length, (1, 1, batch))
