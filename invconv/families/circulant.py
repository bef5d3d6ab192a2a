"""The family of circulant matrices, by their first column."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, log_abs, namespace, size, total
from invconv.families.family import Family
from invconv.families.pointwise import Pointwise
from invconv.kernels.frequencies.circulant import (
    CirculantStep,
    channel_multiplicity,
    circulant_matrix,
    circulant_vjp,
    from_spectrum,
    inverse_of,
    spectrum,
)
from invconv.kernels.pixel_steps import PixelStep
from invconv.trust.bound import Bounds, of_matrix


@dataclass(frozen=True)
class Circulant(Pointwise):
    """circ(w)[i, j] = w[(i - j) mod C]; log|det| = N sum log|w_hat|, w_hat the transform of w."""

    hint: ClassVar[str] = "the Fourier transform of the circulant has a zero; change it"

    def matrix(self, w: Array) -> tuple[Array, Any]:
        return circulant_matrix(w), None

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> Array:
        return circulant_vjp(bar)

    def undoing(self, w: Array) -> tuple[PixelStep, ...]:
        return (CirculantStep.of(w),)

    def transposed(self, w: Array) -> tuple[Family, Array]:
        xp = namespace(w)
        return self, xp.concat([w[:1], xp.flip(w[1:], axis=0)])

    def log_det(self, w: Array, shape: Shape, saving: bool = False) -> tuple[Array, Any]:
        half = namespace(w).hypot(*spectrum(w))
        often = constant(channel_multiplicity(int(w.shape[0])), half, half.dtype)
        return size(shape) * total(often * log_abs(half)), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        """See `Family`; the sum of log|w_hat| has the derivative C circ(w)^-T e_0."""
        real, imag = inverse_of(*spectrum(w))
        channels = int(w.shape[0])
        more = (size(shape) * channels * bar) * from_spectrum(real, -imag, channels)
        return more if known is None else known + more

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        back = circulant_matrix(from_spectrum(*inverse_of(*spectrum(w)), len(w)))
        return replace(of_matrix(circulant_matrix(w), back), terms=2 * len(w))
