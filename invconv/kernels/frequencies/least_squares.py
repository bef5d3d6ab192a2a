"""Regularised inverses of matrices: x = K^+ y minimises |K x - y|^2 + d^2 |x|^2.

Without damping d it is the pseudo-inverse: of several x that are as good, the one of least norm.
With damping, K^+ is the first C columns of the pseudo-inverse of K above d times the identity:
nothing is squared. A singular value that rounding alone would give is taken for zero. A convolution
has one such matrix a frequency, x_hat(f) = K_hat(f)^+ y_hat(f).
"""

import functools
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, constant, identity, namespace, readable, zeros
from invconv.arrays.stencil import taps_of
from invconv.kernels.frequencies.basis import Basis
from invconv.kernels.frequencies.products import SpectralProduct, by_frequencies, within_range
from invconv.kernels.frequencies.spectrum import kernel_spectrum
from invconv.kernels.frequencies.waves import complex_of
from invconv.kernels.primitives import conjugate, matmul

_ROUNDING = 8  # units of rounding of the entries of a matrix, for each channel


def damped_inverses(matrices: Array, scale: Array, damp: float | Array, name: str) -> Array:
    """Return the regularised inverses of matrices (F, C, C).

    ``scale`` is the size of the numbers whose sums the entries are: singular values that their
    rounding alone would give count as zero. Errors call the matrices' parameter ``name``.
    """
    if readable(scale) and not bool(namespace(scale).all(namespace(scale).isfinite(scale))):
        raise ValueError(f"{name}: expected finite numbers, got NaN or an infinite one")
    xp, channels = namespace(matrices), int(matrices.shape[-1])
    rounding = _ROUNDING * channels * float(xp.finfo(matrices.dtype).eps)
    if channels == 1:
        size = abs(matrices)
        lost = size <= rounding * scale  # not where it is NaN
        size = xp.where(lost, xp.ones_like(size), size)
        turned = conjugate(matrices)
        return xp.where(lost, xp.zeros_like(turned), turned / size / (size + damp * (damp / size)))
    inverses = _pseudo_inverse(matrices, scale, rounding)
    if isinstance(damp, int | float) and damp == 0:
        return inverses
    damping = xp.broadcast_to(damp * identity(channels, matrices), matrices.shape)
    above = xp.concat([matrices, damping], axis=-2)
    damped = _pseudo_inverse(above, scale, rounding)[..., :channels]
    return matmul(matmul(inverses, matrices), damped)  # in the row space: else noise / damp^2


def _pseudo_inverse(matrices: Array, scale: Array, rounding: float) -> Array:
    """Return pseudo-inverses; singular values up to ``rounding`` times ``scale`` are zero.

    Libraries compare with the largest singular value of each matrix: the scale is made one, in a
    corner of its own.
    """
    xp, (*lead, rows, columns) = namespace(matrices), matrices.shape
    beside = xp.concat([matrices, zeros((*lead, rows, 1), matrices)], axis=-1)
    corner = xp.astype(scale, matrices.dtype) + zeros((*lead, 1, 1), matrices)
    below = xp.concat([zeros((*lead, 1, columns), matrices), corner], axis=-1)
    whole = xp.concat([beside, below], axis=-2)
    if isinstance(whole, np.ndarray) or xp.isdtype(whole.dtype, "real floating"):
        return xp.linalg.pinv(whole, rtol=rounding)[..., :columns, :rows]
    # as real matrices of twice the size: torch's compiled pinv of complex ones is wrong
    real, imag = xp.real(whole), xp.imag(whole)
    left, right = (xp.concat(parts, axis=-2) for parts in ([real, imag], [-imag, real]))
    whole = xp.linalg.pinv(xp.concat([left, right], axis=-1), rtol=rounding)[..., :rows]
    return complex_of(whole[..., :columns, :], whole[..., columns + 1 : -1, :])


def least_squares(
    kernel: Array, counts: np.ndarray[Any, Any], basis: Basis, y: Array, damp: float | Array
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
