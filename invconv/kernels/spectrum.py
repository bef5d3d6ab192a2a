"""Periodic convolutions in the frequency domain (the paper's section 3.2).

By the convolution theorem a periodic convolution decouples: y_hat(f) = K_hat(f) x_hat(f), one
C x C matrix a frequency. The images are real, so half of the last axis's frequencies suffice;
the rest are complex conjugates.

Called by `CircularFamily.factor` and `operators.periodic`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, device, namespace, readable, size
from invconv.arrays.registry import Primitive
from invconv.kernels.primitives import inverse_or_nan, log_abs_det, matmul, split_singular
from invconv.kernels.solver import Solver

Phases = np.ndarray[Any, np.dtype[np.float64]]

# An explicit inverse is as good as a solve only where the matrix is well conditioned: its error
# grows with the square of the condition number.
_INVERSE_LIMIT = 10.0
_AT_ONCE = 2**16  # taps times pixels, up to which all phases are kept
_TURN = 2j * np.pi  # here, since torch.compile takes pi for an input in dynamic code


def complex_dtype(like: Array) -> Any:
    """Return the complex dtype of the precision of ``like``."""
    xp = namespace(like)
    return xp.complex128 if xp.finfo(like.dtype).bits == 64 else xp.complex64


def phases(kernel_size: Shape, dilation: Shape, shape: Shape) -> list[np.ndarray[Any, Any]]:
    """Return, per axis, exp(2 pi i f dilation (t - (k - 1)//2) / n), shape (k, frequencies).

    The product f x offset is reduced modulo n in integers, so that no phase is large, quarter
    turns are exact, and a kernel wider than the grid folds onto it.
    """
    result = []
    for axis, (k, d, n) in enumerate(zip(kernel_size, dilation, map(int, shape), strict=True)):
        frequencies = np.arange(n // 2 + 1 if axis == len(shape) - 1 else n)
        steps = np.outer(d * (np.arange(k) - (k - 1) // 2), frequencies) % n
        quarter = 4 * steps % n == 0  # of a turn, where exp would leave a rounding error for a zero
        exact = np.asarray([1, 1j, -1, -1j])[4 * steps // n]
        result.append(np.where(quarter, exact, np.exp(_TURN * steps / n)))
    return result


def kernel_spectrum(kernel: Array, dilation: Shape, shape: Shape) -> Array:
    """Return K_hat(f) = sum over t of K[..., t] exp(2 pi i f . offset(t) / n), shape (F, C, C)."""
    xp = namespace(kernel)
    kernel_size = tuple(map(int, kernel.shape[2:]))
    if readable(kernel) and size(kernel_size) * size(shape) <= _AT_ONCE:
        return _spectrum_at_once(kernel, *_all_phases(kernel_size, dilation, tuple(shape)))
    spectrum = xp.astype(kernel, complex_dtype(kernel))
    for phase in phases(kernel_size, dilation, shape):
        factor = constant(phase, kernel, complex_dtype(kernel))
        spectrum = _contract(spectrum, factor)
    channels = kernel.shape[0]
    return xp.permute_dims(xp.reshape(spectrum, (channels, channels, -1)), (2, 0, 1))


def _spectrum_at_once(kernel: Array, cosines: Phases, sines: Phases) -> Array:
    """Return the spectrum by a product of all taps with all frequencies, of small kernels."""
    xp, channels = namespace(kernel), kernel.shape[0]
    rows = xp.reshape(kernel, (channels * channels, -1))
    parts = [
        xp.astype(matmul(rows, constant(part, kernel, kernel.dtype)), complex_dtype(kernel))
        for part in (cosines, sines)
    ]
    spectrum = xp.reshape(parts[0] + 1j * parts[1], (channels, channels, -1))
    return xp.permute_dims(spectrum, (2, 0, 1))


@functools.lru_cache(maxsize=32)
def _all_phases(kernel_size: Shape, dilation: Shape, shape: Shape) -> tuple[Phases, Phases]:
    """Return the real and imaginary parts of exp(2 pi i f . offset(t) / n), shape (T, F)."""
    joint = np.ones((1, 1), complex)
    for phase in phases(kernel_size, dilation, shape):
        joint = np.einsum("tf,ug->tufg", joint, phase).reshape(
            len(joint) * len(phase), joint.shape[1] * phase.shape[1]
        )
    return joint.real.copy(), joint.imag.copy()


def _contract(a: Array, factor: Array) -> Array:
    """Replace axis 2 of ``a`` by a new last axis: sum over t of a[..., t, ...] factor[t, f]."""
    axes = (0, 1, *range(3, a.ndim), 2)
    return matmul(namespace(a).permute_dims(a, axes), factor)


def multiplicity(shape: Shape) -> np.ndarray[Any, Any]:
    """Return how often each frequency of the half spectrum occurs in the full one, shape (F,)."""
    n = shape[-1]
    last = np.full(n // 2 + 1, 2.0)
    last[0] = 1.0
    if n % 2 == 0:
        last[-1] = 1.0
    return np.broadcast_to(last, (*shape[:-1], n // 2 + 1)).reshape(-1).copy()


def spectral_log_det(spectrum: Array, like: Array, shape: Shape) -> Array:
    """Return the sum over the full spectrum of log|det K_hat(f)|."""
    xp = namespace(spectrum)
    weights = constant(multiplicity(shape), like, like.dtype)
    return xp.sum(weights * log_abs_det(spectrum))


def spectral_log_det_vjp(kernel: Array, dilation: Shape, shape: Shape) -> Array:
    """Return the gradient of the log-determinant with respect to the kernel.

    d/dK[o, c, t] = Re sum over f of K_hat(f)^-1[c, o] exp(2 pi i f . offset(t) / n)
    """
    xp = namespace(kernel)
    channels = kernel.shape[0]
    inverse = inverse_or_nan(kernel_spectrum(kernel, dilation, shape))  # (F, C_in, C_out)
    weights = constant(multiplicity(shape), kernel, complex_dtype(kernel))
    grad = xp.permute_dims(inverse * weights[:, None, None], (2, 1, 0))
    frequencies = (*shape[:-1], shape[-1] // 2 + 1)
    grad = xp.reshape(grad, (channels, channels, *frequencies))
    for phase in phases(tuple(kernel.shape[2:]), dilation, shape):
        factor = constant(phase, kernel, complex_dtype(kernel))
        grad = _contract(grad, xp.matrix_transpose(factor))
    return xp.real(grad)


@Primitive
def spectral_solver(spectrum: Array, shape: Shape) -> Solver:
    """Return the map y -> x, both (B, C, *shape), with x_hat(f) = K_hat(f)^-1 y_hat(f).

    Parameters
    ----------
    spectrum : complex array, shape (F, C, C)
        From `kernel_spectrum`.
    shape : tuple of int
        The grid.

    Returns
    -------
    callable
        With a ``plan``, a dict that says how it works; it can be pickled.
    """
    if readable(spectrum):
        xp = namespace(spectrum)
        if not xp.all(xp.isfinite(spectrum)):  # which a library's inverse might take for singular
            return SpectralSolver(spectrum, xp.full_like(spectrum, math.nan), shape)
        return SpectralSolver(spectrum, stable_spectral_inverse(spectrum), shape)
    # `Linear` puts NaN where K_hat(f) is singular
    return SpectralSolver(split_singular(spectrum)[1], None, shape)


def stable_spectral_inverse(spectrum: Array) -> Array | None:
    """Return the inverse of every matrix where that is as accurate as a solve, else None."""
    inverse = namespace(spectrum).linalg.inv(spectrum)
    return inverse if inverses_keep_accuracy(spectrum, inverse) else None


def inverses_keep_accuracy(spectrum: Array, inverse: Array) -> Array:
    """Tell, as a 0-d bool array, whether products with the inverses are as accurate as solves."""
    return condition_bound(spectrum, inverse) <= _INVERSE_LIMIT * spectrum.shape[-1]


def condition_bound(spectrum: Array, inverse: Array) -> Array:
    """Return max |K_hat(f)|_F max |K_hat(f)^-1|_F, which bounds the 2-norm condition from above."""
    xp = namespace(spectrum)

    def largest(matrices: Array) -> Array:
        return xp.sqrt(xp.max(xp.sum(xp.abs(matrices) ** 2, axis=(1, 2))))

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # inf or NaN is no bound
        return largest(spectrum) * largest(inverse)


@dataclass(frozen=True, eq=False)
class SpectralSolver:
    """FFT, one C x C solve a frequency (or a product with its inverse), inverse FFT."""

    spectrum: Array
    inverse: Array | None
    shape: Shape

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        kept = "solve" if self.inverse is None else "cached inverse"
        return {"method": "spectral", "per frequency": kept, "frequencies": self.spectrum.shape[0]}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        if y.shape[0] == 0:
            return y  # torch has no FFT of an empty batch
        return within_range(self._solve, y)

    def _solve(self, y: Array) -> Array:
        if self.inverse is None:
            x_hat = namespace(y).linalg.solve(self.spectrum, to_frequencies(y))
        else:
            x_hat = matmul(self.inverse, to_frequencies(y))
        return from_frequencies(x_hat, self.shape)


def within_range(solve: Callable[[Array], Array], y: Array) -> Array:
    """Return a linear map of y (B, C, *shape), samples beyond `range_scale` scaled on the way."""
    if readable(y) and hasattr(y, "max"):  # methods are quicker than functions
        limit = _root_of_largest(y)
        if -limit <= y.min() and y.max() <= limit:
            return solve(y)
    scale = range_scale(y)
    return solve(y * scale) / scale


def range_scale(y: Array) -> Array:
    """Return a power of two for each sample: 1, unless sums over its pixels might overflow.

    A power of two is exact, so that no digit depends on it; that of a sample beyond the root of
    the largest number is the inverse of that root.

    Parameters
    ----------
    y : array, shape (B, C, *shape)

    Returns
    -------
    array, shape (B, 1, ...)
    """
    xp, axes = namespace(y), tuple(range(1, y.ndim))
    limit = _root_of_largest(y)
    largest = xp.maximum(xp.max(y, axis=axes, keepdims=True), -xp.min(y, axis=axes, keepdims=True))
    one = xp.ones_like(largest)
    return xp.where(largest > limit, one / limit, one)


def _root_of_largest(y: Array) -> float:
    """Return the root of the largest number of a dtype, about: 2^64 of float32."""
    return 2.0**512 if namespace(y).finfo(y.dtype).bits == 64 else 2.0**64


def to_frequencies(x: Array) -> Array:
    """Return x_hat(f) = sum over p of x[p] exp(-2 pi i f . p / n), half of them.

    Parameters
    ----------
    x : array, shape (B, C, *spatial)

    Returns
    -------
    complex array, shape (F, C, B)
    """
    xp = namespace(x)
    batch, channels = x.shape[:2]
    if batch == 0:  # of which torch has no transform
        count = size(x.shape[2:-1]) * (x.shape[-1] // 2 + 1)
        return xp.zeros((count, channels, 0), dtype=complex_dtype(x), device=device(x))
    x_hat = xp.fft.rfftn(x, axes=tuple(range(2, x.ndim)))
    x_hat = xp.reshape(x_hat, (batch, channels, size(x_hat.shape[2:])))
    return xp.permute_dims(x_hat, (2, 1, 0))


def from_frequencies(x_hat: Array, shape: Shape) -> Array:
    """Undo `to_frequencies`, to a grid of ``shape``."""
    xp = namespace(x_hat)
    _, channels, batch = x_hat.shape
    frequencies = (*shape[:-1], shape[-1] // 2 + 1)
    x_hat = xp.reshape(xp.permute_dims(x_hat, (2, 1, 0)), (batch, channels, *frequencies))
    return xp.fft.irfftn(x_hat, s=shape, axes=tuple(range(2, x_hat.ndim)))
