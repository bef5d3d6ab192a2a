"""The families of convolutions (`invconv.kernels.families`): autoregressive and periodic ones.

    causal     y[p] = sum over t of w[..., t] x[p - direction dilation o(t)],  zero outside the grid
    circular   y[p] = sum over t of w[..., t] x[(p + dilation (t - (k - 1)//2)) mod n]

The weights are the kernels (C, C, *k) that users hold; their masked entries are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, namespace, triangle
from invconv.arrays.stencil import Offset, kernel_of, tap_indices, taps_of
from invconv.kernels.families import StencilFamily, TapsFamily, centred_offsets, kept
from invconv.kernels.frequencies.fourier import Fourier
from invconv.kernels.frequencies.spectrum import (
    kernel_spectrum,
    spectral_apply,
    spectral_gram,
    spectral_solver,
)
from invconv.kernels.primitives import Solver
from invconv.kernels.wavefront import CausalStencil, causal_solver, least_slope


@dataclass(frozen=True)
class CausalFamily(TapsFamily):
    """Autoregressive convolutions, by their kernels w (C, C, *k) with a mask.

    A(w) x[p] = sum over t of w[..., t] x[p - direction dilation o(t)], zero outside the grid.
    """

    kernel_size: Shape
    # The tap at o = 0: (0, ...) of a corner, (0, (k_1 - 1)/2, ...) of a raster. Taps with a
    # lexicographically negative o are masked.
    centre: Offset
    direction: tuple[int, ...]
    dilation: tuple[int, ...]
    # whether the C x C matrix at o = 0 is lower triangular; the other triangle is masked
    lower: bool
    solved = "causal"
    wrap = False
    # the flat position of the tap at o = 0; the taps before it are masked
    first: int = field(init=False, repr=False, compare=False)
    # o(t) of the unmasked taps, in taps; the tap at o = 0 comes first
    reach: tuple[Offset, ...] = field(init=False, repr=False, compare=False)
    # - direction dilation o(t), in pixels
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)
    # as in `invconv.kernels.wavefront.CausalStencil`
    slope: tuple[int, ...] = field(init=False, repr=False, compare=False)
    # the family of A(w) M for C x C matrices M; its weights are ``taps(w) M``
    free: StencilFamily = field(init=False, repr=False, compare=False)
    kept: int = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        taps = tap_indices(self.kernel_size)
        first = taps.index(self.centre)
        reach = tuple(
            tuple(i - c for i, c in zip(t, self.centre, strict=True)) for t in taps[first:]
        )
        scale = [-s * d for s, d in zip(self.direction, self.dilation, strict=True)]
        offsets = tuple(tuple(f * i for f, i in zip(scale, o, strict=True)) for o in reach)
        vars(self).update(
            first=first,
            reach=reach,
            offsets=offsets,
            free=StencilFamily(offsets, False),
            slope=least_slope(reach, len(self.centre)),
            kept=1 if self.lower else -1,
            text=repr(self),
        )

    def stencil(self, w: Array) -> CausalStencil:
        """Return the unmasked taps of a kernel with their offsets."""
        taps = taps_of(w, self.first)
        return CausalStencil(
            triangle(taps[0, ...], lower=self.lower),
            self.lower,
            taps[1:, ...],
            self.reach[1:],
            self.direction,
            self.dilation,
            self.slope,
        )

    def taps(self, w: Array) -> Array:
        """Return the taps (1 + T, C, C) of a kernel, o = 0 first; masked entries are zero."""
        return self._masked(taps_of(w, self.first))

    def kernel(self, taps: Array) -> Array:
        """Return the kernel with these taps (1 + T, C, C), o = 0 first; masked entries are zero."""
        return kernel_of(self._masked(taps), self.kernel_size)

    def _masked(self, taps: Array) -> Array:
        here = triangle(taps[0, ...], lower=self.lower)[None, ...]
        return namespace(taps).concat([here, taps[1:, ...]], axis=0)

    def factor(self, w: Array, shape: Shape) -> Solver:
        return causal_solver(self.stencil(w), shape)

    def transpose(self) -> CausalFamily:
        """Return the family with flipped directions and the other order of the channels."""
        away = tuple(-s for s in self.direction)
        return causal_family(self.kernel_size, self.centre, away, self.dilation, not self.lower)


_causal: dict[Any, CausalFamily] = {}


def causal_family(
    kernel_size: Shape,
    centre: Offset,
    direction: tuple[int, ...],
    dilation: tuple[int, ...],
    lower: bool,
) -> CausalFamily:
    """Return the `CausalFamily` of these settings, the same one each time."""
    key = kernel_size, centre, direction, dilation, lower

    def make() -> dict[Any, CausalFamily]:
        turned = kernel_size, centre, tuple(-s for s in direction), dilation, not lower
        return {settings: CausalFamily(*settings) for settings in (key, turned)}

    family: CausalFamily = kept(_causal, key, make)
    return family


WIDE = 600  # taps, from which a product a frequency is faster on most grids (November 2026)


@dataclass(frozen=True)
class CircularFamily(TapsFamily):
    """Periodic convolutions, by their kernels w (C, C, *k).

    A(w) x[p] = sum over t of w[..., t] x[(p + dilation (t - (k - 1)//2)) mod n]. The solve is one
    C x C system a frequency (`invconv.kernels.frequencies`).
    """

    kernel_size: Shape
    dilation: tuple[int, ...]
    solved = "spectral"
    wrap = True
    uniform: ClassVar[bool] = True  # all pixels are alike
    # dilation (t - (k - 1)//2) of every tap
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)
    # the basis in which the convolution decouples
    basis: Fourier = field(init=False, repr=False, compare=False)
    # True if the kernel has `WIDE` taps or more: then the frequency domain is quicker
    wide: bool = field(init=False, repr=False, compare=False)
    # the family of A(w) M for C x C matrices M, with weights ``taps(w) M``; None if wide
    free: StencilFamily | None = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        offsets = centred_offsets(self.kernel_size, self.dilation)
        wide = len(offsets) >= WIDE
        free = None if wide else StencilFamily(offsets, True)
        basis = Fourier(self.dilation)
        vars(self).update(offsets=offsets, basis=basis, wide=wide, free=free, text=repr(self))

    def counts(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the number of offsets of each tap, shape (T,)."""
        return np.ones(len(self.offsets))

    def by_frequencies(self, x: Array) -> bool:
        return self.wide and namespace(x).finfo(x.dtype).bits <= 64  # longdouble has no transform

    def apply(self, w: Array, x: Array) -> Array:
        if self.by_frequencies(x):
            return spectral_apply(w, self.basis, x)
        return super().apply(w, x)

    def gram(self, x: Array, y: Array) -> Array:
        if self.by_frequencies(x):
            return spectral_gram(x, y, self.kernel_size, self.basis)
        return super().gram(x, y)

    def factor(self, w: Array, shape: Shape) -> Solver:
        return spectral_solver(kernel_spectrum(w, self.basis, shape), self.basis, shape)

    def transpose(self) -> CircularFamily:
        """Return the family of odd sizes: a flipped even kernel has its centre off by one."""
        return circular_family(tuple(k + 1 - k % 2 for k in self.kernel_size), self.dilation)

    def adjoint(self, w: Array) -> Array:
        """Return the flipped kernel of transposed matrices, a zero tap behind each even axis."""
        xp = namespace(w)
        axes = tuple(range(2, w.ndim))
        flipped = xp.flip(xp.permute_dims(w, (1, 0, *axes)), axis=axes)
        for axis, k in zip(axes, self.kernel_size, strict=True):
            if k % 2 == 0:
                first = flipped[(*(slice(None),) * axis, slice(0, 1), ...)]
                flipped = xp.concat([flipped, xp.zeros_like(first)], axis=axis)
        return flipped


_circular: dict[Any, CircularFamily] = {}


def circular_family(kernel_size: Shape, dilation: tuple[int, ...]) -> CircularFamily:
    """Return the `CircularFamily` of these settings, the same one each time."""
    key = kernel_size, dilation

    def make() -> dict[Any, CircularFamily]:
        turned = tuple(k + 1 - k % 2 for k in kernel_size), dilation
        return {settings: CircularFamily(*settings) for settings in (key, turned)}

    family: CircularFamily = kept(_circular, key, make)
    return family
