"""What a basis in which convolutions decouple says: frequencies, phases of taps, transforms.

Implemented by `fourier` and `cosine`; `spectrum` and `products` are written for any.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar, Protocol

import numpy as np

from invconv.arrays.namespaces import Array, Shape
from invconv.kernels.cpu.spectral.plan import RealTransform

Floats = np.ndarray[Any, np.dtype[np.float64]]
Places = tuple[np.ndarray[Any, np.dtype[np.intp]], ...]


class Basis(Hashable, Protocol):
    """An orthogonal basis of images in which a family of convolutions decouples; hashable.

    Attributes
    ----------
    period : number
        Of frequency 1, how many across the grid.
    """

    period: ClassVar[float]

    def dtype(self, like: Array) -> Any:
        """Return the dtype of a spectrum of the precision of ``like``, real or complex."""

    def frequencies(self, shape: Shape) -> Shape:
        """Return how many frequencies there are along each axis of a grid."""

    def multiplicity(self, shape: Shape) -> Floats:
        """Return how often each frequency occurs, shape (F,)."""

    def phases(
        self, kernel_size: Shape, shape: Shape, places: Places | None = None
    ) -> list[np.ndarray[Any, Any]]:
        """Return, per axis, what each tap is multiplied by in K_hat, shape (k, frequencies).

        With ``places``, the frequencies of each axis, only there, and in longdouble.
        """

    def to_frequencies(self, x: Array) -> Array:
        """Transform x (B, C, *spatial), to the shape (F, C, B)."""

    def from_frequencies(self, x_hat: Array, shape: Shape) -> Array:
        """Undo `to_frequencies`, to a grid of ``shape``."""

    def real(self, shape: Shape) -> RealTransform:
        """Return the same transform in real arithmetic, for the compiled kernel; kept."""
