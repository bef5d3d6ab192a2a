"""Convolutions of images that go on beyond their borders, and the family that frequencies decouple.

    periodic    a b c d | a b c d | a b c d        symmetric   d c b a | a b c d | d c b a
    zero        0 0 0 0 | a b c d | 0 0 0 0        odd        -c -b -a 0 | a b c d | 0 -d -c -b

`SpectralFamily` is one C x C matrix a frequency (`kernels.frequencies`):

    y[p] = sum over t of w[..., t] x[p + o(t)],    x continued beyond each border by its word

Along a periodic axis w holds every tap, o(t) = dilation (t - (k - 1)//2). Along the others the
kernel is even, and w holds the half from the centre on: tap t stands at the offsets +t and -t.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, namespace
from invconv.arrays.stencil import Offset, Stencil, seen
from invconv.kernels.families import StencilFamily, TapsFamily, centred_offsets
from invconv.kernels.frequencies import spectrum
from invconv.kernels.frequencies.basis import Basis
from invconv.kernels.primitives import Solver, correlate, correlate_kernel_vjp, flat, pad, part

WIDE = 600  # taps, from which a product per frequency is faster on most grids (November 2026)

_ONE_BORDER: dict[str, Any] = {"periodic": True, "zero": False, "symmetric": "symmetric"}


@dataclass(frozen=True)
class BorderedFamily(TapsFamily):
    """Correlations of kernels (C, C, *k) around their centres with continued images; no solve.

    ``wrap`` is the border of all axes if it is one that libraries know, else the words.
    """

    kernel_size: Shape
    borders: tuple[str, ...]  # one word per axis
    dilation: Shape  # 1 along axes that are not periodic
    wrap: Any = field(init=False, repr=False, compare=False)
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        alike = len(set(self.borders)) == 1
        wrap = _ONE_BORDER.get(self.borders[0], self.borders) if alike else self.borders
        vars(self).update(wrap=wrap, offsets=centred_offsets(self.kernel_size, self.dilation))

    @functools.cached_property
    def inside(self) -> BorderedFamily:
        """The family with zeros beyond the border, for images that are continued already."""
        return BorderedFamily(self.kernel_size, ("zero",) * len(self.borders), self.dilation)

    @property
    def margins(self) -> tuple[tuple[int, int], ...]:
        """The pixels that taps read before the first and behind the last one of each axis."""
        sides = zip(self.kernel_size, self.dilation, strict=True)
        return tuple((d * ((k - 1) // 2), d * (k // 2)) for k, d in sides)

    def apply(self, w: Array, x: Array) -> Array:
        if isinstance(self.wrap, bool):
            return super().apply(w, x)
        return self.cropped(correlate(Stencil(self.offsets, self.taps(w)), self.continued(x)))

    def gram(self, x: Array, y: Array) -> Array:
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
        for axis, (before, behind) in enumerate(self.margins, 2):
            y = part(y, axis, before, y.shape[axis] - behind)
        return y


@functools.lru_cache(maxsize=16)
def _continuation(
    margins: tuple[tuple[int, int], ...], borders: tuple[str, ...], shape: Shape
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None, Shape]:
    """Return flat indices of the pixels of a continued grid, their signs, and its shape.

    The signs are None if all are +1; a pixel that is zero has the index behind the last one.
    """
    places, signs, wide = np.zeros(1, np.int64), np.ones(1), []
    for (before, behind), border, n in zip(margins, borders, shape, strict=True):
        along, sign = seen(border, np.arange(-before, n + behind), n)
        places = (places[:, None] * n + along).reshape(-1)
        signs = (signs[:, None] * sign).reshape(-1)
        wide.append(len(along))
    if (signs == 1).all():
        return places, None, tuple(wide)
    places = np.where(signs == 0, np.prod(shape, dtype=np.int64), places)
    return places, np.where(signs == 0, 1.0, signs), tuple(wide)


@dataclass(frozen=True)
class SpectralFamily(TapsFamily):
    """Convolutions that cosines, sines and Fourier's waves decouple, by their kernels w."""

    kernel_size: Shape  # w is (C, C, *kernel_size)
    borders: tuple[str, ...]  # one word per axis
    dilation: Shape  # 1 along axes that are not periodic
    solved = "spectral"
    wrap: Any = field(init=False, repr=False, compare=False)
    basis: Basis = field(init=False, repr=False, compare=False)  # in which it decouples
    bordered: BorderedFamily = field(init=False, repr=False, compare=False)  # of whole kernels
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)  # of all their taps
    wide: bool = field(init=False, repr=False, compare=False)  # if they have `WIDE` taps or more
    # the family of A(w) M for C x C matrices M, with weights ``taps(w) M``; None if wide or halved
    free: StencilFamily | None = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sides = list(zip(self.kernel_size, self.borders, strict=True))
        whole = tuple(k if border == "periodic" else 2 * k - 1 for k, border in sides)
        # a kernel of three taps sees of an odd continuation the zero alone
        near = tuple("zero" if border == "odd" and k <= 2 else border for k, border in sides)
        bordered = BorderedFamily(whole, near, self.dilation)
        offsets, wide = bordered.offsets, len(bordered.offsets) >= WIDE
        vars(self).update(
            basis=Basis(self.borders, self.dilation),
            bordered=bordered,
            wrap=bordered.wrap,
            offsets=offsets,
            wide=wide,
            free=None if wide or bordered.wrap is not True else StencilFamily(offsets, True),
            text=repr(self),
        )

    @property
    def whole(self) -> BorderedFamily:
        return self.bordered

    def by_frequencies(self, x: Array) -> bool:
        return self.wide and namespace(x).finfo(x.dtype).bits <= 64  # longdouble has no transform

    def apply(self, w: Array, x: Array) -> Array:
        if self.by_frequencies(x):
            return spectrum.spectral_apply(w, self.basis, x)
        return self.bordered.apply(self.unfolded(w), x)

    def gram(self, x: Array, y: Array) -> Array:
        if self.by_frequencies(x):
            return spectrum.spectral_gram(x, y, self.kernel_size, self.basis)
        return self.folded(self.bordered.gram(x, y))

    def unfolded(self, w: Array) -> Array:
        return _with_mirror_images(w, self.borders)

    def folded(self, bar: Array) -> Array:
        return _sums_of_mirror_images(bar, self.borders)

    def factor(self, w: Array, shape: Shape) -> Solver:
        matrices = spectrum.kernel_spectrum(w, self.basis, shape)
        return spectrum.spectral_solver(matrices, self.basis, shape)

    def counts(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the number of offsets of each tap, shape (T,)."""
        whole = np.ones((1, 1, *self.bordered.kernel_size))
        return np.asarray(self.folded(whole)).reshape(-1)

    def transpose(self) -> SpectralFamily:
        """Return the family of odd sizes: a flipped even kernel has its centre off by one."""
        sides = zip(self.kernel_size, self.borders, strict=True)
        odd = tuple(k + 1 - k % 2 if border == "periodic" else k for k, border in sides)
        return self.of(odd, self.borders, self.dilation)

    def adjoint(self, w: Array) -> Array:
        """Return transposed matrices, flipped along periodic axes, a zero tap behind even ones."""
        w, closed = super().adjoint(w), tuple(2 + axis for axis in self.basis.closed)
        w = namespace(w).flip(w, axis=closed) if closed else w
        for axis in closed:
            w = pad(w, axis, 0, 1 - w.shape[axis] % 2)
        return w


def _with_mirror_images(w: Array, borders: tuple[str, ...]) -> Array:
    """Return the whole kernel, of 2 k - 1 taps along axes that are not periodic."""
    xp = namespace(w)
    for axis, border in enumerate(borders, 2):
        if border != "periodic":
            w = xp.concat([xp.flip(part(w, axis, 1), axis=axis), w], axis=axis)
    return w


def _sums_of_mirror_images(bar: Array, borders: tuple[str, ...]) -> Array:
    """Return the transpose of `_with_mirror_images`."""
    xp = namespace(bar)
    for axis, border in enumerate(borders, 2):
        if border != "periodic":
            h = (bar.shape[axis] + 1) // 2
            before = xp.flip(part(bar, axis, 0, h - 1), axis=axis)
            behind = part(bar, axis, h) + before
            bar = xp.concat([part(bar, axis, h - 1, h), behind], axis=axis)
    return bar


def centre_of(kernel_size: Shape, borders: tuple[str, ...]) -> Offset:
    """Return the tap at the pixel itself."""
    sides = zip(kernel_size, borders, strict=True)
    return tuple((k - 1) // 2 if border == "periodic" else 0 for k, border in sides)
