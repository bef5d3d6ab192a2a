"""The basis of cosines: an even kernel on a mirrored image is one real C x C matrix a frequency.

The image is continued by half-sample symmetry, d c b a | a b c d | d c b a, and tap t of the kernel
stands at the offsets +-t along each axis. Then

    K_hat(m) = sum over t of w_t K[..., t] prod over axes of cos(pi m t / N)

with w_t the product over the axes of 1 at t = 0 and 2 elsewhere (S. A. Martucci, Symmetric
Convolution and the Discrete Sine and Cosine Transforms, 1994). The transform is the DCT-II along
each axis, orthonormal. SciPy has it for NumPy's arrays; else it is a product with a matrix along
short axes, and one FFT of N points along longer ones (J. Makhoul, 1980).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, namespace, size
from invconv.kernels.cpu.spectral.product_program import RealTransform
from invconv.kernels.frequencies.fourier import (
    LONG_TURN,
    Fourier,
    Places,
    complex_dtype,
    complex_of,
    turns,
)
from invconv.kernels.primitives import matmul

Floats = np.ndarray[Any, np.dtype[np.float64]]

BY_MATRIX = 128  # points: an axis of at most so many is transformed by a product with a matrix


@dataclass(frozen=True)
class Cosine:
    """cos(pi m (p + 1/2) / N) along each axis, for images with a mirrored border: see `Fourier`."""

    period: ClassVar[float] = 0.5

    def dtype(self, like: Array) -> Any:
        return like.dtype

    def frequencies(self, shape: Shape) -> Shape:
        return shape

    def multiplicity(self, shape: Shape) -> Floats:
        """See `Fourier`: every frequency occurs once."""
        return np.ones(size(shape))

    def phases(
        self, kernel_size: Shape, shape: Shape, places: Places | None = None
    ) -> list[np.ndarray[Any, Any]]:
        """Return, per axis, w_t cos(pi m t / N), shape (h, N)."""
        result, turn = [], () if places is None else (LONG_TURN,)
        for h, m, n in zip(kernel_size, places or map(np.arange, shape), shape, strict=True):
            weights = np.where(np.arange(h) == 0, 1.0, 2.0)[:, None]
            result.append(weights * turns(np.outer(np.arange(h), m), 2 * int(n), *turn).real)
        return result

    def to_frequencies(self, x: Array) -> Array:
        """Return the DCT-II of x (B, C, *spatial), shape (F, C, B)."""
        xp, shape = namespace(x), x.shape[2:]
        batch, channels = x.shape[:2]
        if isinstance(x, np.ndarray):
            from scipy.fft import dctn  # here: it takes long to import

            x_hat = dctn(x, axes=range(2, x.ndim), norm="ortho")
            return x_hat.reshape(batch, channels, size(shape)).transpose(2, 1, 0)
        x = xp.permute_dims(x, (*range(2, x.ndim), 1, 0))
        for axis, n in enumerate(shape):
            rows = xp.reshape(x, (size(shape[:axis]), n, size(x.shape[axis + 1 :])))
            x = xp.reshape(_transform(rows), x.shape)
        return xp.reshape(x, (size(shape), channels, batch))

    def from_frequencies(self, x_hat: Array, shape: Shape) -> Array:
        """Undo `to_frequencies`, to a grid of ``shape``."""
        xp = namespace(x_hat)
        _, channels, batch = x_hat.shape
        if isinstance(x_hat, np.ndarray):
            from scipy.fft import idctn

            x = x_hat.transpose(2, 1, 0).reshape(batch, channels, *shape)
            return idctn(x, axes=range(2, x.ndim), norm="ortho")
        x = xp.reshape(x_hat, (*shape, channels, batch))
        for axis, n in enumerate(shape):
            rows = xp.reshape(x, (size(shape[:axis]), n, size(x.shape[axis + 1 :])))
            x = xp.reshape(_transform_back(rows), x.shape)
        ndim = len(shape)
        return xp.permute_dims(x, (ndim + 1, ndim, *range(ndim)))

    def real(self, shape: Shape) -> RealTransform:
        """See `Fourier`: the transform is real already."""
        return _real(tuple(shape))


Basis: TypeAlias = Fourier | Cosine


@functools.lru_cache(maxsize=32)
def _real(shape: Shape) -> RealTransform:
    there, places = tuple(map(cosine_matrix, shape)), np.arange(size(shape))
    return RealTransform(
        there,
        tuple(m.T for m in there),
        np.zeros((0, 2), np.int64),
        np.stack([places, np.full_like(places, -1)], axis=1),
        places,
        np.ones(len(places)),
    )


@functools.lru_cache(maxsize=32)
def cosine_matrix(n: int) -> Floats:
    """Return the orthonormal DCT-II of n points as a matrix, a row for each frequency."""
    m, p = np.indices((n, n))
    return np.asarray(turns(m * (2 * p + 1), 4 * n).real * _scale(n)[:, None])


def _scale(n: int) -> Floats:
    return np.sqrt(np.where(np.arange(n) == 0, 1.0, 2.0) / n)


@functools.lru_cache(maxsize=32)
def _order(n: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the order of points for one FFT, its inverse, and the factors of the frequencies.

    The even points come first, then the odd ones backwards.
    """
    order = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]])
    half = np.arange(n // 2 + 1)
    return order, np.argsort(order), np.conj(turns(half, 4 * n)) * _scale(n)[half]


def _transform(rows: Array) -> Array:
    """Return the DCT-II along the middle axis of (lead, n, rest)."""
    xp, n = namespace(rows), rows.shape[1]
    if n <= BY_MATRIX or size(rows.shape) == 0:  # torch has no FFT of an empty batch
        return matmul(constant(cosine_matrix(n), rows, rows.dtype), rows)
    order, _, factor = _order(n)
    half = xp.fft.rfft(xp.take(rows, constant(order, rows), axis=1), axis=1)
    half = half * constant(factor[:, None], rows, complex_dtype(rows))
    rest = xp.flip(-xp.imag(half[:, 1 : (n + 1) // 2, :]), axis=1)
    return xp.concat([xp.real(half), rest], axis=1)


def _transform_back(rows: Array) -> Array:
    xp, n = namespace(rows), rows.shape[1]
    if n <= BY_MATRIX or size(rows.shape) == 0:
        return matmul(constant(cosine_matrix(n).T, rows, rows.dtype), rows)
    _, places, factor = _order(n)
    # X[n - m] for m = 0 ... n // 2, and zero for m = 0
    mirrored = xp.flip(rows[:, n - n // 2 :, :], axis=1)
    mirrored = xp.concat([xp.zeros_like(rows[:, :1, :]), mirrored], axis=1)
    half = complex_of(rows[:, : n // 2 + 1, :], -mirrored)
    half = half * constant(1 / factor[:, None], rows, complex_dtype(rows))
    return xp.take(xp.fft.irfft(half, n=n, axis=1), constant(places, rows), axis=1)
