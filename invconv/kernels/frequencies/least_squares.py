"""Regularised inverses of matrices: x = K^+ y minimises |K x - y|^2 + d^2 |x|^2.

Without damping d it is the pseudo-inverse: of several x that are as good, the one of least norm.
With damping, K^+ is the first C columns of the pseudo-inverse of K above d times the identity:
nothing is squared. Its other columns are B = d (K^H K + d^2)^-1, and K^+ = B K^H / d is as accurate
where d exceeds K, to the last digit of a K^+ much smaller than B. A singular value that rounding
alone would give is taken for zero, by the scale of the channels that the kernel couples: others
solve their own problem. A convolution has one such matrix a frequency, x_hat(f) = K_hat(f)^+
y_hat(f).
"""

import functools
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, identity, namespace, readable, zeros
from invconv.arrays.stencil import taps_of
from invconv.kernels.frequencies.basis import Basis
from invconv.kernels.frequencies.products import SpectralProduct, by_frequencies, within_range
from invconv.kernels.frequencies.spectrum import kernel_spectrum
from invconv.kernels.frequencies.waves import complex_of
from invconv.kernels.primitives import conjugate, matmul

_ROUNDING = 8  # units of rounding of the entries of a matrix, for each channel


def damped_inverses(matrices: Array, sizes: Array, damp: float | Array, name: str) -> Array:
    """Return the regularised inverses of matrices (F, C, C).

    An entry is a sum of numbers whose magnitudes add up to that of ``sizes`` (C, C), or (F, C, C).
    Errors call the matrices' parameter ``name``.
    """
    _require_finite(name, sizes)
    xp, channels = namespace(matrices), int(matrices.shape[-1])
    rounding = _ROUNDING * channels * float(xp.finfo(matrices.dtype).eps)
    if channels == 1:
        size = abs(matrices)
        lost = size <= rounding * sizes  # not where it is NaN
        size = xp.where(lost, xp.ones_like(size), size)
        turned = conjugate(matrices)
        return xp.where(lost, xp.zeros_like(turned), turned / size / (size + damp * (damp / size)))
    coupled = _coupled(sizes)
    scale = xp.max(coupled * xp.sum(sizes, axis=1), axis=1, keepdims=True)
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    scaled = matrices / scale
    inverses = _pseudo_inverse(scaled, rounding) * coupled
    if isinstance(damp, int | float) and damp == 0:
        return inverses / scale[:, 0]
    inside = matmul(inverses, scaled)  # the projector to the row space: else noise / damp^2
    scale = scale + damp  # both matrices are of the order of 1, or one of them is
    scaled, part = matrices / scale, damp / scale
    damping = xp.zeros_like(scaled) + part * identity(channels, scale)
    both = _pseudo_inverse(xp.concat([scaled, damping], axis=-2), rounding)
    large = part > 1 / 2
    turned = conjugate(xp.matrix_transpose(scaled))
    products = matmul(both[..., channels:], turned / xp.where(large, part, xp.ones_like(part)))
    damped = xp.where(large, products, both[..., :channels]) * coupled
    return matmul(inside, damped / scale[:, 0])


def _require_finite(name: str, sizes: Array) -> None:
    if readable(sizes) and not bool(namespace(sizes).all(namespace(sizes).isfinite(sizes))):
        raise ValueError(f"{name}: expected finite numbers, got NaN or an infinite one")


def _coupled(sizes: Array) -> Array:
    """Return 1 for each pair of channels that are coupled, through others, too, else 0; (C, C)."""
    xp = namespace(sizes)
    coupled = sizes + xp.matrix_transpose(sizes) + identity(sizes.shape[0], sizes)
    for _ in range(int(sizes.shape[0]).bit_length()):
        coupled = xp.astype(coupled > 0, sizes.dtype)
        coupled = matmul(coupled, coupled)
    return xp.astype(coupled > 0, sizes.dtype)


def _pseudo_inverse(matrices: Array, rounding: float) -> Array:
    """Return pseudo-inverses; singular values up to ``rounding`` are zero.

    Libraries compare with the largest singular value of each matrix: it is made one, in a corner of
    its own.
    """
    xp, (*lead, rows, columns) = namespace(matrices), matrices.shape
    beside = xp.concat([matrices, zeros((*lead, rows, 1), matrices)], axis=-1)
    corner = zeros((*lead, 1, 1), matrices) + 1
    below = xp.concat([zeros((*lead, 1, columns), matrices), corner], axis=-1)
    whole = xp.concat([beside, below], axis=-2)
    if isinstance(whole, np.ndarray) or xp.isdtype(whole.dtype, "real floating"):
        return xp.linalg.pinv(whole, rtol=rounding)[..., :columns, :rows]
    # as real matrices of twice the size: torch's compiled pinv of complex ones is wrong
    real, imag = xp.real(whole), xp.imag(whole)
    left, right = (xp.concat(parts, axis=-2) for parts in ([real, imag], [-imag, real]))
    whole = xp.linalg.pinv(xp.concat([left, right], axis=-1), rtol=rounding)[..., :rows]
    return complex_of(whole[..., :columns, :], whole[..., columns + 1 : -1, :])


def penalised_inverses(
    matrices: Array,
    sizes: Array,
    penalties: Array,
    penalty_sizes: Array,
    damp: float | Array,
    name: str,
) -> Array:
    """Return G(f), with x_hat = G y_hat the least of |K x - y|^2 + d^2 |P x|^2, (F, C, C).

    ``penalties`` (F, R, C) is P, of R / C operators one below the other, and ``penalty_sizes`` the
    sum of their sizes. With A = (K, d P), it is the first columns of A^+, and A^+ (A^+)^H K^H,
    which keeps the digits of a G much smaller than A^+.
    """
    _require_finite(name, sizes)
    _require_finite("penalty", penalty_sizes)
    xp, channels = namespace(matrices), int(matrices.shape[-1])
    rounding = _ROUNDING * channels * float(xp.finfo(matrices.dtype).eps)
    if channels == 1:
        size, penalties = abs(matrices), damp * penalties
        scale = size + xp.sum(abs(penalties), axis=-2, keepdims=True)
        scale = xp.where(scale > 0, scale, xp.ones_like(scale))
        squares = xp.sum(abs(penalties / scale) ** 2, axis=-2, keepdims=True)
        lost = size <= rounding * sizes
        turned = conjugate(matrices) / scale / ((size / scale) ** 2 + squares) / scale
        return xp.where(lost, xp.zeros_like(turned), turned)
    penalty_sizes = damp * penalty_sizes
    coupled = _coupled(sizes + penalty_sizes)
    scale = xp.max(coupled * xp.sum(sizes + penalty_sizes, axis=1), axis=1, keepdims=True)
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    scaled = matrices / scale
    below = damp * penalties / xp.tile(scale, (penalties.shape[-2] // channels, 1))
    both = _pseudo_inverse(xp.concat([scaled, below], axis=-2), rounding)
    turned = matmul(conjugate(xp.matrix_transpose(both)), conjugate(xp.matrix_transpose(scaled)))
    large = xp.max(penalty_sizes) > xp.max(sizes) / 2
    found = xp.where(large, matmul(both, turned), both[..., :channels])
    return found * coupled / scale[:, 0]


def blocks(
    kernel: Array, counts: np.ndarray[Any, Any], basis: Basis, shape: Shape
) -> tuple[Array, Array]:
    """Return K_hat(f), and the sums of |taps|; ``counts`` are the offsets of each tap."""
    often = constant(counts, kernel, kernel.dtype)[:, None, None]
    sizes = namespace(kernel).sum(abs(taps_of(kernel)) * often, axis=0)
    return kernel_spectrum(kernel, basis, shape), sizes


def multiplied(inverses: Array, basis: Basis, y: Array) -> Array:
    """Return x_hat(f) = A(f) y_hat(f) of images y (B, C, *shape)."""
    product = SpectralProduct(inverses, basis, tuple(y.shape[2:]))
    return within_range(functools.partial(by_frequencies.agnostic, product), y)
