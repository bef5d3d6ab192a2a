"""Real waves along an axis that ends at walls: cosines between mirrors, sines between zeros.

    cosines   cos(pi m (p + 1/2) / N)               m = 0 ... N - 1    DCT-II
    sines     sin(pi (m + 1) (p + 1) / (N + 1))     m = 0 ... N - 1    DST-I

Both transforms are orthonormal. SciPy has them for NumPy's arrays; else each is a product with
a matrix along short axes, and one FFT along longer ones (of the cosines: J. Makhoul, 1980).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, constant, namespace, size
from invconv.kernels.frequencies.turns import complex_dtype, complex_of, turns
from invconv.kernels.primitives import matmul

Floats = np.ndarray[Any, np.dtype[np.float64]]

BY_MATRIX = 128  # points: an axis of at most so many is transformed by a product with a matrix


@dataclass(frozen=True)
class Waves:
    """Cosines or sines: an orthonormal transform of real numbers along axes."""

    first: int  # half waves of the lowest frequency between the walls: 0 of cosines, 1 of sines

    def phases(self, h: int, m: np.ndarray[Any, Any], n: int, *turn: Any) -> np.ndarray[Any, Any]:
        """Return w_t cos(pi (m + first) t / (N + first)), t = 0 ... h - 1: w_0 = 1, else 2."""
        weights = np.where(np.arange(h) == 0, 1.0, 2.0)[:, None]
        steps = np.outer(np.arange(h), m + self.first)
        result: np.ndarray[Any, Any] = weights * turns(steps, 2 * (n + self.first), *turn).real
        return result

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def matrix(self, n: int) -> Floats:
        """Return the transform of n points as a matrix, a row for each frequency."""
        m, p = np.indices((n, n))
        if self.first:
            return np.asarray(turns((m + 1) * (p + 1), 2 * (n + 1)).imag * np.sqrt(2 / (n + 1)))
        return np.asarray(turns(m * (2 * p + 1), 4 * n).real * _scale(n)[:, None])

    def transform(self, x: Array, axes: Sequence[int], *, back: bool = False) -> Array:
        """Return the transform of x along some axes, or with ``back`` the one that undoes it."""
        if not axes:
            return x
        if isinstance(x, np.ndarray):
            from scipy import fft  # here: it takes long to import

            if self.first:
                return fft.dstn(x, type=1, axes=axes, norm="ortho")
            return (fft.idctn if back else fft.dctn)(x, axes=axes, norm="ortho")
        quick = _sines if self.first else _cosines_back if back else _cosines
        for axis in axes:
            n, shape = int(x.shape[axis]), x.shape
            lead, rest = size(shape[:axis]), size(shape[axis + 1 :])
            rows = namespace(x).reshape(x, (lead, n, rest))
            if n > BY_MATRIX and size(shape):  # torch has no FFT of an empty batch
                rows = quick(rows)
            else:
                rows = _multiplied(self.matrix(n).T if back else self.matrix(n), rows)
            x = namespace(x).reshape(rows, shape)
        return x


COSINES, SINES = Waves(0), Waves(1)


def _multiplied(matrix: Floats, rows: Array) -> Array:
    """Return the product of a matrix with the middle axis of (lead, n, rest)."""
    if rows.shape[2] == 1:  # one product instead of many
        return matmul(rows[:, :, 0], constant(matrix.T, rows, rows.dtype))
    return matmul(constant(matrix, rows, rows.dtype), rows)


def _sines(rows: Array) -> Array:
    """Return the DST-I along the middle axis, from an odd continuation."""
    xp, n = namespace(rows), rows.shape[1]
    zero = xp.zeros_like(rows[:, :1, :])
    whole = xp.concat([zero, rows, zero, -xp.flip(rows, axis=1)], axis=1)
    return xp.imag(xp.fft.rfft(whole, axis=1)[:, 1 : n + 1, :]) * -((2 * (n + 1)) ** -0.5)


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


def _cosines(rows: Array) -> Array:
    """Return the DCT-II along the middle axis."""
    xp, n = namespace(rows), rows.shape[1]
    order, _, factor = _order(n)
    half = xp.fft.rfft(xp.take(rows, constant(order, rows), axis=1), axis=1)
    half = half * constant(factor[:, None], rows, complex_dtype(rows))
    rest = xp.flip(-xp.imag(half[:, 1 : (n + 1) // 2, :]), axis=1)
    return xp.concat([xp.real(half), rest], axis=1)


def _cosines_back(rows: Array) -> Array:
    xp, n = namespace(rows), rows.shape[1]
    _, places, factor = _order(n)
    # X[n - m] for m = 0 ... n // 2, and zero for m = 0
    mirrored = xp.flip(rows[:, n - n // 2 :, :], axis=1)
    mirrored = xp.concat([xp.zeros_like(rows[:, :1, :]), mirrored], axis=1)
    half = complex_of(rows[:, : n // 2 + 1, :], -mirrored)
    half = half * constant(1 / factor[:, None], rows, complex_dtype(rows))
    return xp.take(xp.fft.irfft(half, n=n, axis=1), constant(places, rows), axis=1)
