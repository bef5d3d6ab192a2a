"""The family of symmetric convolutions (`invconv.kernels.families`): even kernels, mirrored images.

    y[p] = sum over offsets o, |o| < h along each axis, of w[..., |o|] x[mirror(p + o)]

with the image continued by half-sample symmetry, d c b a | a b c d | d c b a, at every border. Each
tap is a symmetric matrix of the pixels, so the transpose has the same family and transposed taps.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, namespace
from invconv.arrays.stencil import Offset, Stencil
from invconv.kernels.families import MIRROR, TapsFamily, centred_offsets, kept
from invconv.kernels.frequencies.cosine import Cosine
from invconv.kernels.frequencies.spectrum import kernel_spectrum, spectral_solver
from invconv.kernels.primitives import Solver, correlate, correlate_kernel_vjp, flat, pad_zero


@dataclass(frozen=True)
class MirroredFamily(TapsFamily):
    """Correlations of whole kernels (C, C, *k), k odd, with mirrored images; there is no solve."""

    kernel_size: Shape  # k
    wrap = MIRROR
    # t - (k - 1)/2 of every tap
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        vars(self).update(offsets=centred_offsets(self.kernel_size, (1,) * len(self.kernel_size)))

    def apply(self, w: Array, x: Array) -> Array:
        """Return the correlation on the grid of x."""
        y = correlate(Stencil(self.offsets, self.taps(w)), self.mirrored(x))
        return self.cropped(y)

    def gram(self, x: Array, y: Array) -> Array:
        """Return the gradient of <y, A(w) x> with respect to w."""
        return self.kernel(correlate_kernel_vjp(self.mirrored(x), self.in_zeros(y), self.offsets))

    def mirrored(self, x: Array) -> Array:
        """Return x (B, C, *spatial), continued by (k - 1)/2 pixels on each side."""
        xp, shape = namespace(x), tuple(map(int, x.shape[2:]))
        places, wide = _mirror(self.kernel_size, shape)
        pixels = xp.take(flat(x), constant(places, x), axis=2)
        return xp.reshape(pixels, (*x.shape[:2], *wide))

    def in_zeros(self, y: Array) -> Array:
        """Return y (B, C, *spatial) with (k - 1)/2 zeros on each side."""
        for axis, k in enumerate(self.kernel_size):
            y = pad_zero(y, 2 + axis, k // 2, k // 2)
        return y

    def cropped(self, y: Array) -> Array:
        """Return y (B, C, *spatial) without (k - 1)/2 pixels on each side."""
        sizes = zip(self.kernel_size, y.shape[2:], strict=True)
        inner = tuple(slice(k // 2, n - k // 2) for k, n in sizes)
        return y[(slice(None), slice(None), *inner)]


@dataclass(frozen=True)
class SymmetricFamily(TapsFamily):
    """Symmetric convolutions, by the taps w (C, C, *h) of their even kernels."""

    kernel_size: Shape  # h
    solved = "spectral"
    wrap = MIRROR
    uniform: ClassVar[bool] = False  # pixels near the border are not like others
    # the family of the whole kernels, of 2 h - 1 taps an axis
    mirrored: MirroredFamily = field(init=False, repr=False, compare=False)
    # the basis in which the convolution decouples
    basis: Cosine = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mirrored = MirroredFamily(tuple(2 * h - 1 for h in self.kernel_size))
        vars(self).update(mirrored=mirrored, basis=Cosine(), text=repr(self))

    @property
    def whole(self) -> MirroredFamily:
        return self.mirrored

    def apply(self, w: Array, x: Array) -> Array:
        return self.whole.apply(self.unfolded(w), x)

    def gram(self, x: Array, y: Array) -> Array:
        return self.folded(self.whole.gram(x, y))

    def unfolded(self, w: Array) -> Array:
        """Return the whole kernel, (C, C, *(2 h - 1)), of taps 0 ... h - 1 along each axis."""
        xp = namespace(w)
        for axis in range(2, w.ndim):
            others = w[(*(slice(None),) * axis, slice(1, None), ...)]
            w = xp.concat([xp.flip(others, axis=axis), w], axis=axis)
        return w

    def folded(self, bar: Array) -> Array:
        xp = namespace(bar)
        for axis in range(2, bar.ndim):
            h, lead = (bar.shape[axis] + 1) // 2, (slice(None),) * axis
            centre = bar[(*lead, slice(h - 1, h), ...)]
            before = xp.flip(bar[(*lead, slice(0, h - 1), ...)], axis=axis)
            others = bar[(*lead, slice(h, None), ...)] + before
            bar = xp.concat([centre, others], axis=axis)
        return bar

    def factor(self, w: Array, shape: Shape) -> Solver:
        return spectral_solver(kernel_spectrum(w, self.basis, shape), self.basis, shape)

    def counts(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the number of offsets of each tap, shape (T,)."""
        along = [np.where(np.arange(h) == 0, 1.0, 2.0) for h in self.kernel_size]
        return functools.reduce(np.multiply.outer, along).reshape(-1)

    def transpose(self) -> SymmetricFamily:
        return self


@functools.lru_cache(maxsize=32)
def _mirror(kernel_size: Shape, shape: Shape) -> tuple[np.ndarray[Any, Any], Shape]:
    """Return flat grid indices of the pixels of a continued grid, and its shape."""
    places = np.zeros((1,), np.int64)
    for k, n in zip(kernel_size, shape, strict=True):
        period = np.arange(-(k // 2), n + k // 2) % (2 * n)
        along = np.minimum(period, 2 * n - 1 - period)
        places = (places[:, None] * n + along).reshape(-1)
    return places, tuple(n + k - 1 for k, n in zip(kernel_size, shape, strict=True))


_symmetric: dict[Shape, SymmetricFamily] = {}


def symmetric_family(kernel_size: Shape) -> SymmetricFamily:
    """Return the `SymmetricFamily` of these sizes, the same one each time."""
    family: SymmetricFamily = kept(
        _symmetric, kernel_size, lambda: {kernel_size: SymmetricFamily(kernel_size)}
    )
    return family
