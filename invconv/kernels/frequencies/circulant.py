"""Circulant matrices, and solves with them.

    circ(c)[i, j] = c[(i - j) mod C]

A circulant matrix is a periodic convolution along the channels. Its eigenvalues are c_hat, the
Fourier transform of c, so circ(c)^-1 is the circulant matrix of the transform back of 1 / c_hat.
The transforms are products with real matrices of cosines and sines here.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from invconv.arrays.namespaces import Array, constant, namespace
from invconv.kernels.frequencies.waves import Floats, half_multiplicity, turns
from invconv.kernels.matrices import PixelStep, in_float64
from invconv.kernels.primitives import matmul


def _transforms(size: int) -> tuple[Floats, Floats]:
    """Return D (2F, C), real parts of half a transform above imaginary ones, and its inverse."""
    entries, frequencies = np.arange(size), np.arange(size // 2 + 1)
    half = turns(np.outer(frequencies, entries), size)
    turned = turns(np.outer(entries, frequencies), size)  # half.T, contiguous
    there = np.concatenate([half.real, -half.imag])
    back = np.concatenate([turned.real, -turned.imag], axis=1)
    return there, back * np.tile(half_multiplicity(size) / size, 2)


def spectrum(c: Array) -> tuple[Array, Array]:
    """Return the real and the imaginary parts of half of c_hat, shapes (C // 2 + 1,)."""
    both = matmul(constant(_transforms(int(c.shape[0]))[0], c, c.dtype), c[:, None])[:, 0]
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
class CirculantStep(PixelStep):
    """The inverse of circ(c), which is circulant, too."""

    inverse: Array  # shape (C,): the first column of circ(c)^-1

    @classmethod
    def of(cls, c: Array) -> Self:
        """Return the step for c, which is transformed here."""
        return cls(c, from_spectrum(*inverse_of(*spectrum(c)), int(c.shape[0])))

    @property
    def matrix(self) -> Array:
        return circulant_matrix(self.given)

    def on_host(self) -> Self:
        return self.of(in_float64(self.given))

    def __call__(self, rows: Array) -> Array:
        return matmul(circulant_matrix(self.inverse), rows)

    def transposed(self, rows: Array) -> Array:
        return matmul(namespace(rows).matrix_transpose(circulant_matrix(self.inverse)), rows)
