"""The family of autoregressive convolutions (`invconv.kernels.families`).

The weights are the kernels (C, C, *k) that users hold; their masked entries are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from invconv.arrays.namespaces import Array, Shape, namespace, triangle
from invconv.arrays.stencil import Offset, kernel_of, tap_indices, taps_of
from invconv.kernels.families import StencilFamily, TapsFamily
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
    lower: bool  # whether the matrix at o = 0 is lower triangular; the other triangle is masked
    solved = "causal"
    wrap = False
    first: int = field(init=False, repr=False, compare=False)  # the taps before it are masked
    # o(t) of the other taps, in taps, and - direction dilation o(t), in pixels; o = 0 comes first
    reach: tuple[Offset, ...] = field(init=False, repr=False, compare=False)
    offsets: tuple[Offset, ...] = field(init=False, repr=False, compare=False)
    slope: tuple[int, ...] = field(init=False, repr=False, compare=False)  # of `CausalStencil`
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
        away = tuple(-s for s in self.direction)
        return self.of(self.kernel_size, self.centre, away, self.dilation, not self.lower)
