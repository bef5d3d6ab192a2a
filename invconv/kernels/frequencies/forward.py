"""Forwards of periodic convolutions in the frequency domain, for kernels of many taps.

    y_hat(f) = K_hat(f) x_hat(f)
    d<y, A(K) x>/dK[..., t] = sum over f, samples of conj(y_hat(f)) x_hat(f)^T phases(f, t) / N

`CircularFamily` chooses them for kernels of `WIDE` taps or more.
"""

from __future__ import annotations

import functools
from typing import Any

from invconv.arrays.namespaces import Array, Shape, constant, namespace, size
from invconv.kernels.frequencies.fourier import Fourier
from invconv.kernels.frequencies.products import SpectralProduct, by_frequencies, within_range
from invconv.kernels.frequencies.spectrum import kernel_spectrum, taps_of_spectrum
from invconv.kernels.primitives import matmul


def spectral_apply(kernel: Array, basis: Fourier, x: Array) -> Array:
    """Return A(K) x, shape (B, C, *spatial)."""
    shape = tuple(x.shape[2:])
    if 0 in x.shape:
        return namespace(x).empty_like(x)
    product = SpectralProduct(kernel_spectrum(kernel, basis, shape), basis, shape)
    # by the library's transforms, since the kernel may be traced
    return within_range(functools.partial(by_frequencies.agnostic, product), x)


def spectral_gram(x: Array, y: Array, kernel_size: Shape, basis: Fourier) -> Array:
    """Return the gradient of <y, A(K) x> with respect to K, shape (C, C, *kernel_size)."""
    xp, shape = namespace(x), tuple(x.shape[2:])
    weights: Any = basis.multiplicity(shape) / size(shape)
    weights = constant(weights, x, basis.dtype(x))
    # weighted before the product, so that the product is no larger than the sums over pixels
    x_hat = basis.to_frequencies(x) * weights[:, None, None]
    y_hat = basis.to_frequencies(y)
    products = matmul(xp.conj(y_hat), xp.permute_dims(x_hat, (0, 2, 1)))  # (F, C_out, C_in)
    return taps_of_spectrum(products, basis, kernel_size, x, shape)
