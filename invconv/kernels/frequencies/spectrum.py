"""Convolutions in the frequency domain of any `Basis`.

In its basis a convolution decouples: y_hat(f) = K_hat(f) x_hat(f), one C x C matrix per frequency.
A short kernel is multiplied by a matrix of phases along each axis, a long one transformed.
Convolutions of `families.Spectral` with `WIDE` taps or more run so, and their gradient is:

    d<y, A(K) x>/dK[..., t] = sum over f, samples of conj(y_hat(f)) x_hat(f)^T phases(f, t) / N

with N the number of pixels along periodic axes, and y_hat in the basis of A(K)^T, which for mirrors
in the last pixels is not that of x_hat.

On the CPU a product with a matrix per frequency is one call of the compiled kernel
(`invconv.kernels.cpu.spectral`), unless it would be slower: then the library transforms.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    namespace,
    ops_of,
    readable,
    size,
    to_numpy,
)
from invconv.arrays.registry import Primitive
from invconv.kernels.cpu.spectral.product import CompiledProduct, compiled_product, prefers_kernel
from invconv.kernels.frequencies.waves import Basis, Floats, complex_of, real_transform
from invconv.kernels.primitives import (
    Plan,
    Solver,
    conjugate,
    inverse_or_nan,
    log_abs_det,
    matmul,
    split_singular,
)

# An explicit inverse is as good as a solve only if the matrix is well conditioned: its error grows
# with the square of the condition number.
_INVERSE_LIMIT = 10.0
# sizes from which another way to the same numbers is quicker
LONG = 32  # taps along an axis, beyond which FFTs take less time and memory than their phases
FEW = 3  # channels for which NumPy's and XLA's products of each frequency are slower than sums
AT_ONCE = 2**16  # the most taps times pixels for which the table of all phases is kept


def kernel_spectrum(kernel: Array, basis: Basis, shape: Shape) -> Array:
    """Return K_hat(f) = sum over t of K[..., t] times the phases of t, shape (F, C, C)."""
    xp = namespace(kernel)
    kernel_size = tuple(map(int, kernel.shape[2:]))
    if readable(kernel) and size(kernel_size) * size(shape) <= AT_ONCE:
        # by one product of all taps with all phases
        rows = xp.matrix_transpose(xp.reshape(kernel, (kernel.shape[0] ** 2, -1)))
        phases = _all_phases(basis, kernel_size, tuple(shape))
        parts = [matmul(constant(part, kernel, kernel.dtype), rows) for part in phases]
        spectrum = parts[0] if len(parts) == 1 else complex_of(*parts)
        return xp.reshape(spectrum, (-1, *kernel.shape[:2]))
    if max(kernel_size) > LONG:
        spectrum = basis.transform(kernel, shape)
    else:
        spectrum = xp.astype(kernel, basis.dtype(kernel))
        for phase in basis.phases(kernel_size, shape):
            spectrum = _contract(spectrum, constant(phase, kernel, basis.dtype(kernel)))
    channels = kernel.shape[0]
    return xp.permute_dims(xp.reshape(spectrum, (channels, channels, -1)), (2, 0, 1))


@functools.lru_cache(maxsize=32)
def _all_phases(basis: Basis, kernel_size: Shape, shape: Shape) -> tuple[Floats, ...]:
    """Return the real parts of all phases and, if they are complex, the imaginary ones, (F, T)."""
    joint = np.ones((1, 1))
    for phase in basis.phases(kernel_size, shape):
        joint = np.einsum("tf,ug->tufg", joint, phase).reshape(len(joint) * len(phase), -1)
    joint = joint.T
    return (joint.real.copy(), joint.imag.copy()) if joint.dtype.kind == "c" else (joint,)


def _contract(a: Array, factor: Array) -> Array:
    """Replace axis 2 of ``a`` by a new last axis: sum over t of a[..., t, ...] factor[t, f]."""
    return matmul(namespace(a).permute_dims(a, (0, 1, *range(3, a.ndim), 2)), factor)


@dataclass(frozen=True, eq=False)
class SpectralProduct:
    """The map y -> x, both (B, C, *shape), with x_hat(f) = A(f) y_hat(f)."""

    matrices: Array  # shape (F, C, C): A(f), of the dtype of the basis, real or complex
    basis: Basis
    shape: Shape  # the grid

    def __call__(self, y: Array) -> Array:
        return within_range(functools.partial(by_frequencies, self), y)

    def by_transforms(self, y: Array) -> Array:
        """Apply the map by the library's transforms, for matrices that may be traced."""
        return within_range(functools.partial(by_frequencies.agnostic, self), y)

    def prefers_kernel(self, batch: int, itemsize: int) -> bool:
        return prefers_kernel(batch, int(self.matrices.shape[1]), self.shape, itemsize)

    @functools.cached_property
    def compiled(self) -> CompiledProduct:
        """The product in the layout of the compiled kernel."""
        basis, shape = self.basis, self.shape
        transform = real_transform(basis.waves, tuple(shape), basis.frequencies(shape))
        return compiled_product(to_numpy(self.matrices), shape, transform)

    @functools.cached_property
    def transposed(self) -> "SpectralProduct":
        turned = namespace(self.matrices).matrix_transpose(conjugate(self.matrices))
        return SpectralProduct(turned, self.basis.transpose(), self.shape)

    def as_numpy(self) -> "SpectralProduct":
        return SpectralProduct(to_numpy(self.matrices), self.basis, self.shape)

    def __reduce__(self) -> Any:
        """Pickle without the compiled layout, which depends on the processor."""
        return SpectralProduct, (self.matrices, self.basis, self.shape)


@functools.partial(Primitive, on=1)
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
    if 0 in y.shape:  # torch does not transform an empty batch
        return namespace(y).empty_like(y)
    ops = ops_of(y)
    if ops.readable(y) and hasattr(y, "max"):  # methods are quicker than functions
        with ops.at_once():
            limit = _root_of_largest(y)
            low, high = y.aminmax() if hasattr(y, "aminmax") else (y.min(), y.max())
            inside = bool(-limit <= low and high <= limit)
        if inside:
            return solve(y)
    scale = range_scale(y)
    return solve(y * scale) / scale


def range_scale(y: Array) -> Array:
    """Return an exact scale, a power of two, for each sample of y (B, C, *shape): (B, 1, ...).

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


@Primitive
def spectral_log_det(kernel: Array, family: Any, shape: Shape) -> Array:
    """Return the sum over all frequencies of log|det K_hat(f)| for a family with a ``basis``."""
    return spectral_log_det_saving(kernel, family, shape)[0]


def spectral_log_det_saving(kernel: Array, family: Any, shape: Shape) -> tuple[Array, Any]:
    """Return `spectral_log_det`, and the spectrum for `spectral_log_det_vjp`."""
    spectrum = kernel_spectrum(kernel, family.basis, shape)
    logs = log_abs_det(spectrum)
    weights = constant(family.basis.multiplicity(shape), logs, logs.dtype)
    return namespace(logs).sum(weights * logs), spectrum


def spectral_log_det_vjp(
    kernel: Array, family: Any, shape: Shape, spectrum: Array | None = None
) -> Array:
    """Return d/dK[o, c, t] = Re sum over f of K_hat(f)^-1[c, o] times the phases of t."""
    basis = family.basis
    spectrum = kernel_spectrum(kernel, basis, shape) if spectrum is None else spectrum
    grad = namespace(kernel).matrix_transpose(inverse_or_nan(spectrum))
    return taps_of_spectrum(grad, basis, tuple(map(int, kernel.shape[2:])), kernel, shape)


def taps_of_spectrum(
    spectrum: Array, basis: Basis, kernel_size: Shape, like: Array, shape: Shape
) -> Array:
    """Return the transpose of `kernel_spectrum`: Re sum over f of A(f) times the phases of a tap.

    ``spectrum`` (F, C, C) is A; frequencies whose conjugates are left out count twice.
    """
    xp, channels = namespace(spectrum), spectrum.shape[-1]
    at_once = readable(spectrum) and size(kernel_size) * size(shape) <= AT_ONCE
    long = max(kernel_size) > LONG and not at_once
    if not long:
        weights = constant(basis.multiplicity(shape), like, basis.dtype(like))
        spectrum = spectrum * weights[:, None, None]
    if at_once:
        rows = xp.reshape(spectrum, (spectrum.shape[0], -1))
        phases = [constant(p.T, like, like.dtype) for p in _all_phases(basis, kernel_size, shape)]
        taps = matmul(phases[0], xp.real(rows) if len(phases) > 1 else rows)
        if len(phases) > 1:
            taps = taps - matmul(phases[1], xp.imag(rows))
        return xp.reshape(xp.matrix_transpose(taps), (channels, channels, *kernel_size))
    taps_by_axis = xp.permute_dims(spectrum, (1, 2, 0))
    taps_by_axis = xp.reshape(taps_by_axis, (channels, channels, *basis.frequencies(shape)))
    if long:
        return basis.transposed_transform(taps_by_axis, kernel_size, shape)
    for phase in basis.phases(kernel_size, shape):
        factor = constant(phase, like, basis.dtype(like))
        taps_by_axis = _contract(taps_by_axis, xp.matrix_transpose(factor))
    return xp.real(taps_by_axis) if basis.closed else taps_by_axis


@Primitive
def spectral_solver(spectrum: Array, basis: Basis, shape: Shape) -> Solver:
    """Return y -> x, x_hat(f) = K_hat(f)^-1 y_hat(f), of a spectrum (F, C, C) on a grid."""
    if readable(spectrum):
        xp = namespace(spectrum)
        if not xp.all(xp.isfinite(spectrum)):  # a library's inverse might raise: "singular"
            inverse = xp.full_like(spectrum, math.nan)
        else:
            inverse = stable_spectral_inverse(spectrum)
        product = None if inverse is None else SpectralProduct(inverse, basis, shape)
        return SpectralSolver(spectrum, product, basis, shape)
    # an operator replaces the result by NaN if a K_hat(f) is singular
    return SpectralSolver(split_singular(spectrum)[1], None, basis, shape)


def stable_spectral_inverse(spectrum: Array) -> Array | None:
    """Return the inverse of every matrix if products with them are as accurate as solves."""
    if spectrum.shape[-1] == 1:  # a library's inverse takes one call a frequency
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            inverse = 1 / spectrum
    else:
        inverse = namespace(spectrum).linalg.inv(spectrum)
    return inverse if inverses_keep_accuracy(spectrum, inverse) else None


def inverses_keep_accuracy(spectrum: Array, inverse: Array) -> Array:
    """Tell, as a 0-d bool array, whether products with the inverses are as accurate as solves.

    max |K_hat(f)|_F max |K_hat(f)^-1|_F bounds the condition in the 2-norm from above.
    """
    xp = namespace(spectrum)

    def largest(matrices: Array) -> Array:
        return xp.sqrt(xp.max(xp.sum(xp.abs(matrices) ** 2, axis=(1, 2))))

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # inf or NaN is no bound
        return largest(spectrum) * largest(inverse) <= _INVERSE_LIMIT * spectrum.shape[-1]


@dataclass(frozen=True, eq=False)
class SpectralSolver:
    """A transform, one C x C solve per frequency (or a product with its inverse), and back."""

    spectrum: Array
    product: SpectralProduct | None
    basis: Basis
    shape: Shape

    @property
    def plan(self) -> Plan:
        kept = "solve" if self.product is None else "cached inverse"
        return Plan("spectral", per_frequency=kept, frequencies=self.spectrum.shape[0])

    def as_numpy(self) -> "SpectralSolver":
        product = None if self.product is None else self.product.as_numpy()
        return SpectralSolver(to_numpy(self.spectrum), product, self.basis, self.shape)

    def __call__(self, y: Array) -> Array:
        return within_range(self._solve, y) if self.product is None else self.product(y)

    def _solve(self, y: Array) -> Array:
        x_hat = solved(self.spectrum, self.basis.to_frequencies(y))
        return self.basis.from_frequencies(x_hat, self.shape)


def solved(spectrum: Array, y_hat: Array) -> Array:
    """Return K_hat(f)^-1 y_hat(f) at all frequencies, shape (F, C, B)."""
    if spectrum.shape[-1] > 1:
        return namespace(y_hat).linalg.solve(spectrum, y_hat)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # a solve would not warn
        return y_hat / spectrum  # a library's solve takes one call a frequency


def spectral_gram(x: Array, y: Array, kernel_size: Shape, basis: Basis) -> Array:
    """Return the gradient of <y, A(K) x> with respect to K, shape (C, C, *kernel_size)."""
    xp, shape = namespace(x), tuple(x.shape[2:])
    # divided before the product, so that the product is no larger than the sums over pixels
    x_hat = basis.to_frequencies(x) / size([shape[axis] for axis in basis.closed])
    y_hat = basis.transpose().to_frequencies(y)
    y_hat = xp.conj(y_hat) if basis.closed else y_hat
    products = matmul(y_hat, xp.permute_dims(x_hat, (0, 2, 1)))  # (F, C_out, C_in)
    return taps_of_spectrum(products, basis, kernel_size, x, shape)
