"""How a causal solve lays an image out: one contiguous row per wavefront, no gather.

With all directions +1 and all dilations 1 (`Layout.enter` flips and splits the image so that this
holds), pixel p belongs to the front level(p) = w . p. Along one axis, the line, w is 1: there
p_line = level - (w . p without it), so that a pixel is known by its level and its other
coordinates. In an array (levels, *other axes), what a tap reads for a whole front is one block of
an earlier front, shifted by a constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jax import lax
from jax import numpy as jnp

from invconv.arrays import Array, Shape
from invconv.stencil import Offset
from invconv.wavefront import CausalStencil


@dataclass(frozen=True)
class Geometry:
    """What a solve depends on besides values: hashable, so that JAX compiles once for each.

    Attributes
    ----------
    lower, reach, direction, dilation, slope
        As in `invconv.wavefront.CausalStencil`.
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
        """Return that of a stencil on a grid."""
        c = causal
        return cls(c.lower, c.reach, c.direction, c.dilation, c.slope, tuple(shape))

    def transpose(self) -> Geometry:
        """Return that of the transposed operator."""
        flipped = tuple(-s for s in self.direction)
        return Geometry(not self.lower, self.reach, flipped, self.dilation, self.slope, self.shape)

    @property
    def coarse(self) -> Shape:
        """The grid of each residue class modulo the dilation, which are independent images."""
        return tuple(-(-n // d) for n, d in zip(self.shape, self.dilation, strict=True))

    @property
    def line(self) -> int:
        """The axis along which a front advances: of slope 1, and the longest such one."""
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

    def drop(self, offset: Offset) -> int:
        """Return how many levels earlier the pixels are that a tap reads."""
        return sum(w * o for w, o in zip(self.slope, offset, strict=True))

    def halo(self, axis: int) -> int:
        """Return how many pixels along an axis a tap reaches back."""
        return self.dilation[axis] * max((offset[axis] for offset in self.reach), default=0)

    @property
    def looks_ahead(self) -> bool:
        """Whether a tap reads along an axis against its direction, as rasters do."""
        return any(o < 0 for offset in self.reach for o in offset)

    def enter(self, y: Array) -> Array:
        """Lay out (B, C, *shape) as (levels, C, *residues, *others, B), zero between the pixels."""
        ndim = len(self.shape)
        y = jnp.flip(y, self._backward)
        for a, (n, m, d) in enumerate(self._split):
            y = jnp.pad(
                y, [(0, m * d - n) if axis == 2 + 2 * a else (0, 0) for axis in range(y.ndim)]
            )
            y = y.reshape(*y.shape[: 2 + 2 * a], m, d, *y.shape[3 + 2 * a :])
        y = jnp.transpose(y, self._order)
        for axis, a in enumerate(self.others, start=2 + ndim):
            y = _skew(y, axis, self.slope[a])
        return jnp.moveaxis(y, (-1, 0), (0, -1))

    def leave(self, x: Array) -> Array:
        """Undo `enter`."""
        ndim = len(self.shape)
        x = jnp.moveaxis(x, (0, -1), (-1, 0))
        for axis, a in reversed(list(enumerate(self.others, start=2 + ndim))):
            x = _unskew(x, axis, self.slope[a])
        x = jnp.transpose(x, np.argsort(self._order).tolist())
        for a, (n, m, d) in enumerate(self._split):
            x = x.reshape(*x.shape[: 2 + a], m * d, *x.shape[4 + a :])
            x = lax.slice_in_dim(x, 0, n, axis=2 + a)
        return jnp.flip(x, self._backward)

    @property
    def _backward(self) -> list[int]:
        """The axes of (B, C, *shape) to flip, so that all directions are +1."""
        return [2 + a for a, s in enumerate(self.direction) if s < 0]

    @property
    def _split(self) -> list[tuple[int, int, int]]:
        """Of every axis: its pixels, and those along it and across it by residue."""
        return list(zip(self.shape, self.coarse, self.dilation, strict=True))

    @property
    def _order(self) -> tuple[int, ...]:
        """How to order (B, C, pixels, residues, pixels, residues, ...)."""
        residues = range(3, 3 + 2 * len(self.shape), 2)
        return (0, 1, *residues, *(2 + 2 * a for a in (*self.others, self.line)))


def _skew(v: Array, axis: int, slope: int) -> Array:
    """Move row i of the last axis right by slope x i, i counted along ``axis``."""
    v = jnp.moveaxis(v, axis, -2)
    *lead, n, m = v.shape
    width = m + slope * (n - 1)
    # with rows that are longer by the slope than those that are read back, each starts later
    v = jnp.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, width + slope - m)])
    v = v.reshape(*lead, n * (width + slope))[..., : n * width].reshape(*lead, n, width)
    return jnp.moveaxis(v, -2, axis)


def _unskew(v: Array, axis: int, slope: int) -> Array:
    """Undo `_skew`."""
    v = jnp.moveaxis(v, axis, -2)
    *lead, n, width = v.shape
    v = v.reshape(*lead, n * width)
    v = jnp.pad(v, [(0, 0)] * len(lead) + [(0, n * slope)]).reshape(*lead, n, width + slope)
    return jnp.moveaxis(v[..., : width - slope * (n - 1)], -2, axis)
