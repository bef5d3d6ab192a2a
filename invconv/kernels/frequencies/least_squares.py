"""Regularised inverses in the frequency domain, x_hat(f) = K_hat(f)^+ y_hat(f)."""

from __future__ import annotations

import functools

import numpy as np

from invconv.arrays.namespaces import Array, constant, namespace
from invconv.arrays.stencil import taps_of
from invconv.kernels.frequencies.basis import Basis
from invconv.kernels.frequencies.products import SpectralProduct, by_frequencies, within_range
from invconv.kernels.frequencies.pseudo_inverses import damped_inverses
from invconv.kernels.frequencies.spectrum import kernel_spectrum


def least_squares(
    kernel: Array,
    counts: np.ndarray[tuple[int], np.dtype[np.float64]],
    basis: Basis,
    y: Array,
    damp: float | Array,
) -> Array:
    """Return x for images y, both (B, C, *shape); ``counts`` are the offsets of each tap."""
    xp, shape = namespace(kernel), tuple(y.shape[2:])
    if 0 in y.shape:
        return xp.empty_like(y)
    often = constant(counts, kernel, kernel.dtype)[:, None, None]
    scale = xp.max(xp.sum(abs(taps_of(kernel)) * often, axis=(0, 2)))
    inverses = damped_inverses(kernel_spectrum(kernel, basis, shape), scale, damp, "kernel")
    product = SpectralProduct(inverses, basis, shape)
    return within_range(functools.partial(by_frequencies.agnostic, product), y)
