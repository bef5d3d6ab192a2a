"""The base class of the convolutions that are solved frequency by frequency, in any basis."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, namespace, size
from invconv.arrays.stencil import Offset, kernel_of, tap_indices, taps_of
from invconv.kernels.convolutions import CircularFamily
from invconv.kernels.frequencies.products import SpectralProduct, by_frequencies
from invconv.kernels.frequencies.spectrum import (
    kernel_spectrum,
    spectral_log_det,
    spectral_log_det_saving,
    spectral_log_det_vjp,
)
from invconv.kernels.symmetric import SymmetricFamily
from invconv.operators.base.protocol import Gradients
from invconv.operators.convolution import Convolution
from invconv.solve.state import Map, State
from invconv.trust import condition
from invconv.trust.frequencies import error_by_frequencies
from invconv.trust.gains import matrix_within, taps_within
from invconv.trust.norms import SolveOverflowError


class SpectralConv(Convolution, abstract=True):
    """A convolution with one C x C matrix K_hat(f) a frequency; log det = sum log|det K_hat(f)|."""

    _saves_log_det = True
    _spectral = _closed = True

    @property
    @abstractmethod
    def _family(self) -> CircularFamily | SymmetricFamily:
        """The family of A, which has the basis."""

    def _spectrum(self, shape: Shape) -> Array:
        return kernel_spectrum(self.kernel, self._family.basis, shape)

    def _own_place(self) -> Offset:
        """Return the tap at the pixel itself."""
        return (0,) * len(self._kernel_size)

    def _within(self, gain: float) -> Self:
        size = self._kernel_size
        centre = tap_indices(size).index(self._own_place())
        often = constant(self._counts(), self.kernel, self.kernel.dtype)[:, None, None]
        taps = taps_of(self.kernel) * often
        concat = namespace(taps).concat
        others = concat([taps[:centre, ...], taps[centre + 1 :, ...]], axis=0)
        own = gain ** (1 / 3) if others.shape[0] else gain
        block, inverse_norm = matrix_within(taps[centre, ...], own)
        if others.shape[0]:
            others = taps_within(others, inverse_norm, gain / own)
        taps = concat([others[:centre, ...], block[None, ...], others[centre:, ...]], axis=0)
        return self.replace(kernel=kernel_of(taps / often, size))

    def _log_det(self, shape: Shape) -> Array:
        return spectral_log_det(self.kernel, self._family, shape)

    def _log_det_saving(self, shape: Shape) -> tuple[Array, Any]:
        return spectral_log_det_saving(self.kernel, self._family, shape)

    def _add_log_det_vjp(
        self, gradients: Gradients, shape: Shape, log_det_bar: Array, memo: Any
    ) -> Gradients:
        more = log_det_bar * spectral_log_det_vjp(self.kernel, self._family, shape, memo)
        known = gradients.get("kernel")
        return gradients | {"kernel": more if known is None else known + more}

    def _finite_elsewhere(self, shape: Shape) -> str:
        """Return no note if float64's own number may be the rounding of a zero."""
        note = super()._finite_elsewhere(shape)
        return note if note and self._on_host(np.float64)._condition(shape).resolved else ""

    def _condition(self, shape: Shape) -> condition.Condition:
        if not np.isfinite(self.kernel).all():
            raise SolveOverflowError
        taps = float(np.linalg.norm(taps_of(self.kernel), 2, axis=(1, 2)) @ self._counts())
        rounding = self.channels * taps * condition.EPS["float64"]
        spectral = condition.of_spectrum(self._spectrum(shape), rounding)
        if spectral.value == math.inf:
            self._require_regular(shape, self._log_det(shape))
        basis = self._family.basis
        (worst,) = map(int, spectral.frequency or (0,))
        place = np.unravel_index(worst, basis.frequencies(shape))
        return replace(spectral, frequency=tuple(basis.period * int(f) for f in place))

    def _linear_maps(self, shape: Shape) -> tuple[Map, Map]:
        product = SpectralProduct(self._spectrum(shape), self._family.basis, shape)
        return partial(by_frequencies.agnostic, product), self._factor(shape).linear().solve

    def _transposed_maps(self, shape: Shape) -> tuple[Map, Map]:
        product = SpectralProduct(self._spectrum(shape), self._family.basis, shape).transposed
        return partial(by_frequencies.agnostic, product), self._transposed_solver(shape)

    def _products(self, shape: Shape, compiled: bool = False) -> float:
        return float(self.channels**2 * self._counts().sum() * size(shape))

    def _error_by_frequencies(self, shape: Shape, state: State | None = None) -> float:
        state = self._factor(shape) if state is None else state
        family = self._family
        by_taps = not getattr(family, "wide", False)
        return error_by_frequencies(self.kernel, family.basis, shape, state, by_taps=by_taps)

    def _counts(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the number of offsets of each tap, shape (T,)."""
        return np.ones(int(np.prod(self._kernel_size)))

    @property
    def _singular_hint(self) -> str:
        return "K_hat(f) is singular at a frequency f; change the kernel or the grid size"
