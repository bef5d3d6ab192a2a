"""Circulant matrices between two diagonal ones, and solves with them step by step.

    W = diag(left) circ(c) diag(right),    circ(c)[i, j] = c[(i - j) mod C]

A circulant matrix is a periodic convolution along the channels. Its eigenvalues are c_hat, the
Fourier transform of c, so circ(c)^-1 transforms, divides by c_hat and transforms back. The
transforms are products with real matrices of cosines and sines here, as there are few channels and
many pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, constant, diagonal_matrix, namespace, to_numpy
from invconv.kernels.frequencies.fourier import Fourier
from invconv.kernels.frequencies.turns import turns
from invconv.kernels.primitives import from_pixel_rows, matmul, pixel_rows

Floats = np.ndarray[Any, np.dtype[np.float64]]


def _transforms(size: int) -> tuple[Floats, Floats]:
    """Return D (2F, C), real parts of half a transform above imaginary ones, and its inverse."""
    entries, frequencies = np.arange(size), np.arange(size // 2 + 1)
    half = turns(np.outer(frequencies, entries), size)
    turned = turns(np.outer(entries, frequencies), size)  # half.T, contiguous
    there = np.concatenate([half.real, -half.imag])
    back = np.concatenate([turned.real, -turned.imag], axis=1)
    return there, back * np.tile(channel_multiplicity(size) / size, 2)


def channel_multiplicity(size: int) -> Floats:
    """Return how often each of the C // 2 + 1 frequencies occurs."""
    return Fourier((1,)).multiplicity((size,))


def spectrum(c: Array) -> tuple[Array, Array]:
    """Return the real and the imaginary parts of half of c_hat, shapes (C // 2 + 1,)."""
    there = constant(_transforms(int(c.shape[0]))[0], c, c.dtype)
    both = matmul(there, c[:, None])[:, 0]
    half = both.shape[0] // 2
    return both[:half], both[half:]


def from_spectrum(real: Array, imag: Array, size: int) -> Array:
    """Return c, shape (C,), given half of its transform."""
    back = constant(_transforms(size)[1], real, real.dtype)
    return matmul(back, namespace(real).concat([real, imag])[:, None])[:, 0]


def inverse_of(real: Array, imag: Array) -> tuple[Array, Array]:
    """Return the real and imaginary parts of 1 / c_hat, scaled so that no square overflows."""
    xp = namespace(real)
    larger = xp.maximum(xp.abs(real), xp.abs(imag))
    real, imag = real / larger, imag / larger
    norm = real * real + imag * imag
    return real / norm / larger, -imag / norm / larger


def circulant_matrix(c: Array) -> Array:
    """Return circ(c), shape (C, C)."""
    xp, size = namespace(c), int(c.shape[0])
    i = np.arange(size)
    places = constant((i[:, None] - i[None, :]) % size, c)
    return xp.reshape(xp.take(c, xp.reshape(places, (-1,)), axis=0), (size, size))


def circulant_vjp(matrix_bar: Array) -> Array:
    """Return the gradient of <matrix_bar, circ(c)> with respect to c: sums along diagonals."""
    xp, size = namespace(matrix_bar), int(matrix_bar.shape[0])
    k, i = np.indices((size, size))
    places = constant((i * size + (i - k) % size).reshape(-1), matrix_bar)
    along = xp.take(xp.reshape(matrix_bar, (-1,)), places, axis=0)
    return xp.sum(xp.reshape(along, (size, size)), axis=1)


@dataclass(frozen=True, eq=False)
class CirculantSteps:
    """y -> x = diag(1 / right) circ(c)^-1 diag(1 / left) y at every pixel.

    Attributes
    ----------
    left, circulant, right : array, shape (C,)
    inverse : pair of array, shape (C // 2 + 1,)
        The real and the imaginary parts of 1 / c_hat.
    """

    left: Array
    circulant: Array
    right: Array
    inverse: tuple[Array, Array]

    @staticmethod
    def of(left: Array, circulant: Array, right: Array) -> CirculantSteps:
        """Return the steps for these factors; c is transformed here."""
        return CirculantSteps(left, circulant, right, inverse_of(*spectrum(circulant)))

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "circulant factors"}

    @property
    def arrays(self) -> list[Array]:
        """The arrays of the factors of W."""
        return [self.left, self.circulant, self.right]

    def on_host(self) -> tuple[Floats, Floats]:
        """Return W and W^-1 in float64."""
        left, c, right = (to_numpy(a).astype(np.float64, copy=False) for a in self.arrays)
        inverse = from_spectrum(*inverse_of(*spectrum(c)), len(c))
        back = circulant_matrix(inverse) / right[:, None] / left
        return left[:, None] * circulant_matrix(c) * right, back

    def factors(self) -> list[Array]:
        """Return the factors as matrices, in the order in which they are applied."""
        right, left = diagonal_matrix(self.right), diagonal_matrix(self.left)
        return [right, circulant_matrix(self.circulant), left]

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        inner = self._divide(pixel_rows(y) / self.left[:, None], 1)
        return from_pixel_rows(inner / self.right[:, None], y.shape)

    def transposed(self, x_bar: Array) -> Array:
        """Return diag(1 / left) circ(c)^-T diag(1 / right) x_bar, shape (B, C, *spatial)."""
        inner = self._divide(pixel_rows(x_bar) / self.right[:, None], -1)
        return from_pixel_rows(inner / self.left[:, None], x_bar.shape)

    def vjp(self, y: Array, x_bar: Array) -> tuple[Array, Array, Array]:
        """Pull x_bar back to left, c and right, without losing digits that the solve keeps.

        Parameters
        ----------
        y, x_bar : array, shape (B, C, *spatial)
        """
        xp = namespace(y)
        first = pixel_rows(y) / self.left[:, None]
        second = self._divide(first, 1)
        x, bar = second / self.right[:, None], pixel_rows(x_bar)
        second_bar = bar / self.right[:, None]
        first_bar = self._divide(second_bar, -1)
        return (
            -xp.sum(first_bar * first, axis=1) / self.left,
            -circulant_vjp(matmul(first_bar, xp.matrix_transpose(second))),
            -xp.sum(second_bar * x, axis=1),
        )

    def _divide(self, rows: Array, sign: int) -> Array:
        """Return circ(c)^-1 times rows (C, pixels); with the sign -1, its transpose times rows."""
        xp, size = namespace(rows), rows.shape[0]
        there, back = (constant(m, rows, rows.dtype) for m in _transforms(size))
        both = matmul(there, rows)
        half = both.shape[0] // 2
        real, imag = both[:half, ...], both[half:, ...]
        by_real, by_imag = self.inverse[0][:, None], sign * self.inverse[1][:, None]
        parts = [real * by_real - imag * by_imag, real * by_imag + imag * by_real]
        return matmul(back, xp.concat(parts))
