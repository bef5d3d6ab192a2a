"""A basis in which convolutions decouple: frequencies, phases, transforms; and roots of unity.

`fourier` and `cosine` implement the protocol; `spectrum` and `products` work with any basis.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar, Protocol

import numpy as np

from invconv.arrays.namespaces import Array, Shape
from invconv.kernels.cpu.spectral.product_program import RealTransform

Floats = np.ndarray[Any, np.dtype[np.float64]]
Places = tuple[np.ndarray[Any, np.dtype[np.intp]], ...]


class Basis(Hashable, Protocol):
    """An orthogonal basis of images in which a family of convolutions decouples; hashable."""

    period: ClassVar[float]  # how many periods frequency 1 has across the grid

    def dtype(self, like: Array) -> Any:
        """Return the dtype of a spectrum, real or complex, in the precision of ``like``."""

    def frequencies(self, shape: Shape) -> Shape:
        """Return the number of frequencies along each axis of a grid."""

    def multiplicity(self, shape: Shape) -> Floats:
        """Return how often each frequency occurs, shape (F,)."""

    def phases(
        self, kernel_size: Shape, shape: Shape, places: Places | None = None
    ) -> list[np.ndarray[Any, Any]]:
        """Return, per axis, the factor of each tap in K_hat, shape (k, frequencies).

        If ``places``, some frequencies along each axis, are given, return only the factors at them,
        in longdouble.
        """

    def to_frequencies(self, x: Array) -> Array:
        """Transform x (B, C, *spatial), to the shape (F, C, B)."""

    def from_frequencies(self, x_hat: Array, shape: Shape) -> Array:
        """Undo `to_frequencies`, to a grid of ``shape``."""

    def real(self, shape: Shape) -> RealTransform:
        """Return the transform in real arithmetic, for the compiled kernel; it is cached."""


_TURN = 2j * np.pi  # here, since torch.compile takes pi for an input in dynamic code
LONG_TURN = 8j * np.arctan(np.longdouble(1))


def turns(steps: np.ndarray[Any, Any], n: int, turn: Any = _TURN) -> np.ndarray[Any, Any]:
    """Return exp(2 pi i steps / n) of integers, reduced modulo n; quarter turns are exact.

    ``turn`` is 2 pi i, in the precision of the result.
    """
    n = int(n)  # a size is a tensor inside torch.jit.trace
    steps = steps % n
    if steps.size > n:  # all of them, once each
        every = turns(np.arange(n), n, turn)
        looked_up: np.ndarray[Any, Any] = every[steps]
        return looked_up
    quarter = 4 * steps % n == 0  # quarter turns: exp would return a rounding error for a zero
    exact = np.asarray([1, 1j, -1, -1j])[4 * steps // n]
    result: np.ndarray[Any, Any] = np.where(quarter, exact, np.exp(turn * steps / n))
    return result
