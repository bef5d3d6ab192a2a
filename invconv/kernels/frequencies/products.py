"""Products with a matrix per frequency: x_hat(f) = A(f) y_hat(f) of images.

On the CPU the transforms are products with matrices of cosines and sines, and one call of the
compiled kernel (`invconv.kernels.cpu.spectral`) does all. On other devices, or if the call would be
slower, the library transforms and multiplies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, namespace, readable, to_numpy
from invconv.arrays.registry import Primitive
from invconv.kernels.cpu.spectral.product import CompiledProduct, compiled_product, prefers_kernel
from invconv.kernels.frequencies.basis import Basis
from invconv.kernels.frequencies.waves import real_transform
from invconv.kernels.primitives import conjugate, matmul

FEW = 3  # channels for which NumPy's and XLA's products of each frequency are slower than sums


@dataclass(frozen=True, eq=False)
class SpectralProduct:
    """The map y -> x, both (B, C, *shape), with x_hat(f) = A(f) y_hat(f)."""

    matrices: Array  # shape (F, C, C): A(f), of the dtype of the basis, real or complex
    basis: Basis
    shape: Shape  # the grid

    def __call__(self, y: Array) -> Array:
        if not y.shape[0]:
            return namespace(y).empty_like(y)
        return within_range(partial(by_frequencies, self), y)

    def prefers_kernel(self, batch: int, itemsize: int) -> bool:
        """Tell whether the compiled kernel runs and is faster for a batch of this size."""
        return prefers_kernel(batch, int(self.matrices.shape[1]), self.shape, itemsize)

    @functools.cached_property
    def compiled(self) -> CompiledProduct:
        """The product in the layout of the compiled kernel."""
        basis, shape = self.basis, self.shape
        transform = real_transform(basis.waves, tuple(shape), basis.frequencies(shape))
        return compiled_product(to_numpy(self.matrices), shape, transform)

    @functools.cached_property
    def transposed(self) -> SpectralProduct:
        """The transpose of the map: the product with A(f)^H."""
        turned = namespace(self.matrices).matrix_transpose(conjugate(self.matrices))
        return SpectralProduct(turned, self.basis.transpose(), self.shape)

    def as_numpy(self) -> SpectralProduct:
        """Return the map on NumPy arrays."""
        return SpectralProduct(to_numpy(self.matrices), self.basis, self.shape)

    def __reduce__(self) -> Any:
        """Pickle without the compiled layout, which depends on the processor."""
        return SpectralProduct, (self.matrices, self.basis, self.shape)


@partial(Primitive, on=1)
def by_frequencies(product: SpectralProduct, y: Array) -> Array:
    """Return x with x_hat(f) = A(f) y_hat(f), both (B, C, *shape); the batch must not be empty."""
    x_hat = at_frequencies(product.matrices, product.basis.to_frequencies(y))
    return product.basis.from_frequencies(x_hat, product.shape)


def at_frequencies(matrices: Array, y_hat: Array) -> Array:
    """Return A(f) y_hat(f) at all frequencies, shape (F, C, B)."""
    channels = range(matrices.shape[-1])
    if len(channels) == 1:
        return matrices * y_hat
    if len(channels) > FEW or not isinstance(matrices, np.ndarray):
        return matmul(matrices, y_hat)
    x_hat = np.empty_like(y_hat)
    for o in channels:
        np.multiply(matrices[:, o, 0, None], y_hat[:, 0], out=x_hat[:, o])
        for c in channels[1:]:
            x_hat[:, o] += matrices[:, o, c, None] * y_hat[:, c]
    return x_hat


def within_range(solve: Callable[[Array], Array], y: Array) -> Array:
    """Return a linear map of y (B, C, *shape), scaling samples that might overflow on the way."""
    if readable(y) and hasattr(y, "max"):  # methods are quicker than functions
        limit = _root_of_largest(y)
        low, high = y.aminmax() if hasattr(y, "aminmax") else (y.min(), y.max())
        if -limit <= low and high <= limit:
            return solve(y)
    scale = range_scale(y)
    return solve(y * scale) / scale


def range_scale(y: Array) -> Array:
    """Return a power of two, so that it is exact, for each sample of y (B, C, *shape): (B, 1, ...).

    It is 1 unless sums over the pixels might overflow: a sample that exceeds the root of the
    largest number of the dtype gets the inverse of that root.
    """
    xp, axes = namespace(y), tuple(range(1, y.ndim))
    limit = _root_of_largest(y)
    largest = xp.maximum(xp.max(y, axis=axes, keepdims=True), -xp.min(y, axis=axes, keepdims=True))
    one = xp.ones_like(largest)
    return xp.where(largest > limit, one / limit, one)


def _root_of_largest(y: Array) -> float:
    """Return about the square root of the largest number of y's dtype: 2^64 for float32."""
    return 2.0**512 if namespace(y).finfo(y.dtype).bits == 64 else 2.0**64
