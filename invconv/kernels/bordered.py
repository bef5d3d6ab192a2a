"""Correlations with images that go on beyond their border, axis by axis; there is no solve.

periodic    a b c d | a b c d | a b c d        symmetric   d c b a | a b c d | d c b a
zero        0 0 0 0 | a b c d | 0 0 0 0        odd        -c -b -a 0 | a b c d | 0 -d -c -b
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, namespace
from invconv.arrays.stencil import Offset, Stencil, seen
from invconv.kernels.families import TapsFamily, centred_offsets
from invconv.kernels.primitives import correlate, correlate_kernel_vjp, flat, pad

_ONE_BORDER: dict[str, Any] = {"periodic": True, "zero": False, "symmetric": "symmetric"}


@dataclass(frozen=True)
class BorderedFamily(TapsFamily):
    """Correlations of kernels (C, C, *k) around their centres with continued images.

    ``wrap`` is the border of all axes if it is one that libraries know, else the words.
    """

    kernel_size: Shape
    borders: tuple[str, ...]  # one word an axis
    wrap: Any = field(init=False, repr=False, compare=False)
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        alike = len(set(self.borders)) == 1
        wrap = _ONE_BORDER.get(self.borders[0], self.borders) if alike else self.borders
        offsets = centred_offsets(self.kernel_size, (1,) * len(self.kernel_size))
        vars(self).update(wrap=wrap, offsets=offsets)

    @functools.cached_property
    def inside(self) -> BorderedFamily:
        """The family with zeros beyond the border, for images that are continued already."""
        return BorderedFamily(self.kernel_size, ("zero",) * len(self.borders))

    @property
    def margins(self) -> tuple[tuple[int, int], ...]:
        """The pixels that taps read before the first and behind the last one of each axis."""
        return tuple(((k - 1) // 2, k // 2) for k in self.kernel_size)

    def apply(self, w: Array, x: Array) -> Array:
        """Return the correlation on the grid of x."""
        if isinstance(self.wrap, bool):
            return super().apply(w, x)
        return self.cropped(correlate(Stencil(self.offsets, self.taps(w)), self.continued(x)))

    def gram(self, x: Array, y: Array) -> Array:
        """Return the gradient of <y, A(w) x> with respect to w."""
        if isinstance(self.wrap, bool):
            return super().gram(x, y)
        return self.kernel(correlate_kernel_vjp(self.continued(x), self.in_zeros(y), self.offsets))

    def continued(self, x: Array) -> Array:
        """Return x (B, C, *spatial) with its margins."""
        xp, shape = namespace(x), tuple(map(int, x.shape[2:]))
        places, signs, wide = _continuation(self.margins, self.borders, shape)
        pixels = flat(x)
        if signs is not None:  # zeros are a pixel of their own, behind the last one
            pixels = xp.concat([pixels, xp.zeros_like(pixels[:, :, :1])], axis=2)
        pixels = xp.take(pixels, constant(places, x), axis=2)
        if signs is not None:
            pixels = pixels * constant(signs, x, x.dtype)
        return xp.reshape(pixels, (*x.shape[:2], *wide))

    def in_zeros(self, y: Array) -> Array:
        """Return y (B, C, *spatial) with zeros for margins."""
        for axis, (before, behind) in enumerate(self.margins, 2):
            y = pad(y, axis, before, behind)
        return y

    def cropped(self, y: Array) -> Array:
        """Return y (B, C, *spatial) without its margins."""
        sides = zip(self.margins, y.shape[2:], strict=True)
        inner = tuple(slice(before, n - behind) for (before, behind), n in sides)
        return y[(slice(None), slice(None), *inner)]


@functools.lru_cache(maxsize=16)
def _continuation(
    margins: tuple[tuple[int, int], ...], borders: tuple[str, ...], shape: Shape
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None, Shape]:
    """Return flat indices of the pixels of a continued grid, their signs, and its shape.

    The signs are None if all are +1; a pixel that is zero has the index behind the last one.
    """
    places, signs = np.zeros(1, np.int64), np.ones(1)
    for (before, behind), border, n in zip(margins, borders, shape, strict=True):
        along, sign = seen(border, np.arange(-before, n + behind), n)
        places = (places[:, None] * n + along).reshape(-1)
        signs = (signs[:, None] * sign).reshape(-1)
    sides = zip(margins, shape, strict=True)
    wide = tuple(before + n + behind for (before, behind), n in sides)
    if (signs == 1).all():
        return places, None, wide
    places = np.where(signs == 0, np.prod(shape, dtype=np.int64), places)
    return places, np.where(signs == 0, 1.0, signs), wide
