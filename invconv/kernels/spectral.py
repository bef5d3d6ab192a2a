"""The family of the convolutions that are one C x C matrix a frequency (`kernels.frequencies`).

    y[p] = sum over t of w[..., t] x[p + o(t)],    x continued beyond each border by its word

Along a periodic axis w holds every tap, o(t) = dilation (t - (k - 1)//2). Along the others the
kernel is even, and w holds the half from the centre on: tap t stands at the offsets +t and -t.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, namespace
from invconv.arrays.stencil import Offset
from invconv.kernels.bordered import BorderedFamily
from invconv.kernels.families import StencilFamily, TapsFamily, centred_offsets
from invconv.kernels.frequencies.basis import Basis
from invconv.kernels.frequencies.spectrum import (
    kernel_spectrum,
    spectral_apply,
    spectral_gram,
    spectral_solver,
)
from invconv.kernels.primitives import Solver

WIDE = 600  # taps, from which a product a frequency is faster on most grids (November 2026)


@dataclass(frozen=True)
class SpectralFamily(TapsFamily):
    """Convolutions that cosines, sines and Fourier's waves decouple, by their kernels w."""

    kernel_size: Shape  # w is (C, C, *kernel_size)
    borders: tuple[str, ...]  # one word an axis
    dilation: Shape  # 1 along axes that are not periodic
    solved = "spectral"
    wrap: Any = field(init=False, repr=False, compare=False)
    # the basis in which the convolution decouples
    basis: Basis = field(init=False, repr=False, compare=False)
    # the family of the whole kernels; None if w is whole
    bordered: BorderedFamily | None = field(init=False, repr=False, compare=False)
    # dilation (t - (k - 1)//2) of every tap of the whole kernel
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)
    # True if the whole kernel has `WIDE` taps or more: then the frequency domain is quicker
    wide: bool = field(init=False, repr=False, compare=False)
    # the family of A(w) M for C x C matrices M, with weights ``taps(w) M``; None if wide or halved
    free: StencilFamily | None = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        bordered = _bordered(self.kernel_size, self.borders)
        whole = self.kernel_size if bordered is None else bordered.kernel_size
        offsets = centred_offsets(whole, self.dilation)
        wide = len(offsets) >= WIDE
        vars(self).update(
            basis=Basis(self.borders, self.dilation),
            bordered=bordered,
            wrap=True if bordered is None else bordered.wrap,
            offsets=offsets,
            wide=wide,
            free=StencilFamily(offsets, True) if bordered is None and not wide else None,
            text=repr(self),
        )

    @property
    def whole(self) -> TapsFamily:
        return self.bordered or self

    def by_frequencies(self, x: Array) -> bool:
        return self.wide and namespace(x).finfo(x.dtype).bits <= 64  # longdouble has no transform

    def apply(self, w: Array, x: Array) -> Array:
        if self.by_frequencies(x):
            return spectral_apply(w, self.basis, x)
        if self.bordered is None:
            return super().apply(w, x)
        return self.bordered.apply(self.unfolded(w), x)

    def gram(self, x: Array, y: Array) -> Array:
        if self.by_frequencies(x):
            return spectral_gram(x, y, self.kernel_size, self.basis)
        if self.bordered is None:
            return super().gram(x, y)
        return self.folded(self.bordered.gram(x, y))

    def unfolded(self, w: Array) -> Array:
        """Return the whole kernel, of 2 k - 1 taps along axes that are not periodic."""
        return _with_mirror_images(w, self._halved)

    def folded(self, bar: Array) -> Array:
        return _sums_of_mirror_images(bar, self._halved)

    @property
    def _halved(self) -> tuple[int, ...]:
        """The axes of w along which it holds half of the kernel."""
        return tuple(2 + axis for axis, w in enumerate(self.basis.waves) if w is not None)

    def factor(self, w: Array, shape: Shape) -> Solver:
        return spectral_solver(kernel_spectrum(w, self.basis, shape), self.basis, shape)

    def counts(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the number of offsets of each tap, shape (T,)."""
        whole = np.ones((1, 1, *self.whole.kernel_size))
        return np.asarray(self.folded(whole)).reshape(-1)

    def transpose(self) -> SpectralFamily:
        """Return the family of odd sizes: a flipped even kernel has its centre off by one."""
        return self.of(_odd(self.kernel_size, self.borders), self.borders, self.dilation)

    def adjoint(self, w: Array) -> Array:
        """Return transposed matrices, flipped along periodic axes, a zero tap behind even ones."""
        w = namespace(w).permute_dims(w, (1, 0, *range(2, w.ndim)))
        return _flipped(w, tuple(2 + axis for axis in self.basis.closed))


def _bordered(kernel_size: Shape, borders: tuple[str, ...]) -> BorderedFamily | None:
    """Return the family of the whole kernels, None if all axes are periodic."""
    if set(borders) == {"periodic"}:
        return None
    sides = list(zip(kernel_size, borders, strict=True))
    whole = tuple(k if border == "periodic" else 2 * k - 1 for k, border in sides)
    # a kernel of three taps sees of an odd continuation the zero alone
    near = tuple("zero" if border == "odd" and k <= 2 else border for k, border in sides)
    return BorderedFamily(whole, near)


def _with_mirror_images(w: Array, axes: tuple[int, ...]) -> Array:
    """Return a kernel whose taps 1, 2, ... along some axes stand at -1, -2, ..., too."""
    xp = namespace(w)
    for axis in axes:
        others = w[(*(slice(None),) * axis, slice(1, None), ...)]
        w = xp.concat([xp.flip(others, axis=axis), w], axis=axis)
    return w


def _sums_of_mirror_images(bar: Array, axes: tuple[int, ...]) -> Array:
    """Return the transpose of `_with_mirror_images`."""
    xp = namespace(bar)
    for axis in axes:
        h, lead = (bar.shape[axis] + 1) // 2, (slice(None),) * axis
        centre = bar[(*lead, slice(h - 1, h), ...)]
        before = xp.flip(bar[(*lead, slice(0, h - 1), ...)], axis=axis)
        bar = xp.concat([centre, bar[(*lead, slice(h, None), ...)] + before], axis=axis)
    return bar


def _flipped(w: Array, axes: tuple[int, ...]) -> Array:
    """Return w flipped along axes, with a zero tap behind if there are evenly many."""
    xp = namespace(w)
    w = xp.flip(w, axis=axes) if axes else w
    for axis in axes:
        if w.shape[axis] % 2 == 0:
            first = w[(*(slice(None),) * axis, slice(0, 1), ...)]
            w = xp.concat([w, xp.zeros_like(first)], axis=axis)
    return w


def centre_of(kernel_size: Shape, borders: tuple[str, ...]) -> Offset:
    """Return the tap at the pixel itself."""
    pairs = zip(kernel_size, borders, strict=True)
    return tuple((k - 1) // 2 if border == "periodic" else 0 for k, border in pairs)


def _odd(kernel_size: Shape, borders: tuple[str, ...]) -> Shape:
    """Return the sizes, larger by one along periodic axes where they are even."""
    pairs = zip(kernel_size, borders, strict=True)
    return tuple(k + 1 - k % 2 if border == "periodic" else k for k, border in pairs)
