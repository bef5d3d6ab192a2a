"""Families of convolutions: autoregressive ones, and those that a basis decouples."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, namespace, size
from invconv.arrays.stencil import taps_of
from invconv.families.family import Linear
from invconv.kernels.convolutions import CausalFamily
from invconv.kernels.frequencies.products import SpectralProduct, by_frequencies
from invconv.kernels.frequencies.spectrum import (
    kernel_spectrum,
    spectral_log_det,
    spectral_log_det_saving,
    spectral_log_det_vjp,
)
from invconv.kernels.primitives import Map, add_pivots, pivots
from invconv.kernels.spectral import SpectralFamily
from invconv.trust import condition
from invconv.trust.bound import UNBOUNDED, Bounds, of_taps
from invconv.trust.condition import SolveOverflowError


@dataclass(frozen=True)
class Causal(Linear):
    """Autoregressive convolutions; `log det = N sum over c of log|w[c, c, at 0]|`."""

    linear: CausalFamily
    hint: ClassVar[str] = (
        "the kernel has a zero on the diagonal of its C x C matrix at the pixel itself"
    )

    def pivots(self, w: Array) -> Array | None:
        return pivots(w, self.linear.centre)

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        known = namespace(w).zeros_like(w) if known is None else known
        memo = self.pivots(w) if memo is None else memo
        return add_pivots(known, self.linear.centre, size(shape) * bar / memo)

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        causal = self.linear.stencil(w)
        if not all(np.isfinite(a).all() for a in (causal.diagonal, causal.taps)):
            return UNBOUNDED
        return of_taps(causal.diagonal, causal.taps)

    def longest_columns(self, shape: Shape) -> tuple[int | None, ...]:
        # along an axis on which no offset points back, A and A^-1 are triangular and Toeplitz: the
        # column of a pixel is the first pixel's column, shifted and cut off by the grid
        ways = zip(self.linear.direction, shape, strict=True)
        first = [0 if s > 0 else n - 1 for s, n in ways]
        followed = 1 if any(self.linear.centre) else len(shape)
        return tuple(p if axis < followed else None for axis, p in enumerate(first))

    def reach(self, axis: int) -> int:
        return max(abs(offset[axis]) for offset in self.linear.offsets)


@dataclass(frozen=True)
class Spectral(Linear):
    """Convolutions with one matrix per frequency; `log det = sum over f of log|det K_hat(f)|`."""

    linear: SpectralFamily
    hint: ClassVar[str] = (
        "K_hat(f) is singular at a frequency f; change the kernel or the grid size, or use "
        "least_squares(y), which is the solution of least norm"
    )
    closed: ClassVar[bool] = True
    spectral: ClassVar[bool] = True

    def transposed_vjp(self, bar: Array) -> Array:
        """See `Family`; the transpose of a kernel of even size has one tap more."""
        back = self.linear.transpose().adjoint(bar)
        sizes = zip(back.shape[2:], self.linear.kernel_size, strict=True)
        return back[(slice(None), slice(None), *(slice(n - k, None) for n, k in sizes))]

    def log_det(self, w: Array, shape: Shape, saving: bool = False) -> tuple[Array, Any]:
        if saving:
            return spectral_log_det_saving(w, self.linear, shape)
        return spectral_log_det(w, self.linear, shape), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        more = bar * spectral_log_det_vjp(w, self.linear, shape, memo)
        return more if known is None else known + more

    def made_ready(self, w: Array, shape: Shape) -> Map:
        """See `Family`; by frequencies, without a sum over taps."""
        basis = self.linear.basis
        product = SpectralProduct(kernel_spectrum(w, basis, shape), basis, shape)
        agnostic: Callable[..., Array] = by_frequencies.agnostic
        return partial(agnostic, product)

    def condition(self, w: np.ndarray[Any, Any], shape: Shape) -> condition.Condition:
        if not np.isfinite(w).all():
            raise SolveOverflowError
        taps = float(np.linalg.norm(taps_of(w), 2, axis=(1, 2)) @ self.linear.counts())
        rounding = len(w) * taps * condition.EPS["float64"]
        basis = self.linear.basis
        spectral = condition.of_spectrum(kernel_spectrum(w, basis, shape), rounding)
        (worst,) = map(int, spectral.frequency or (0,))
        place = np.unravel_index(worst, basis.frequencies(shape))
        return replace(spectral, frequency=basis.periods(tuple(map(int, place))))

    def longest_columns(self, shape: Shape) -> tuple[int | None, ...]:
        """See `Family`; along a periodic axis all pixels are alike."""
        return tuple(0 if border == "periodic" else None for border in self.linear.borders)

    def products(self, w: Any, shape: Shape, compiled: bool = False) -> float:
        return float(len(w) ** 2 * self.linear.counts().sum() * size(shape))
