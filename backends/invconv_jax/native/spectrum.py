"""The primitive `spectral_solver`: x_hat(f) = K_hat(f)^-1 y_hat(f), by products or elimination.

The core's `kernels.frequencies` has the mathematics. Fourier transforms of the last axes keep a
batch on its devices: `lax.fft` would gather a batch that is spread over devices, hence
`SplitByBatch`.
"""

from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array, Shape, readable, size, to_numpy
from invconv.kernels.frequencies import spectrum as core
from invconv.kernels.frequencies.waves import BY_MATRIX, Basis
from invconv.kernels.primitives import Plan
from invconv_jax.native.partition import SplitByBatch, beside
from invconv_jax.native.products import eliminate, matmul


def _transform(x: Array, *, kind: str, lengths: tuple[int, ...]) -> Array:
    run: Any = {"rfft": jnp.fft.rfftn, "irfft": jnp.fft.irfftn}[kind]
    return run(x, lengths, range(-len(lengths), 0))


def _transposed(bar: Array, *, kind: str, lengths: tuple[int, ...]) -> Array:
    """Apply the transpose of `_transform` to a cotangent."""
    *others, last = lengths
    into = (*others, last // 2 + 1) if kind == "irfft" else lengths
    bits = jnp.finfo(bar.dtype).bits  # of one real number
    dtype = f"float{bits}" if kind == "rfft" else f"complex{2 * bits}"
    like = jax.ShapeDtypeStruct((*bar.shape[: bar.ndim - len(into)], *into), dtype)
    transpose = jax.linear_transpose(partial(_transform, kind=kind, lengths=lengths), like)
    return transpose(bar)[0]


@cache
def _run(ndim: int, back: bool) -> SplitByBatch:
    """Return the transform of the last axes, or its transpose: each is the other's transpose."""
    name = f"invconv_fft_of_{ndim}" + "_transposed" * back

    def transpose(bar: Array, _: Any, **settings: Any) -> Array:
        return _run(ndim, not back)(bar, **settings)

    return SplitByBatch(
        name, _transposed if back else _transform, tuple(range(-ndim, 0)), transpose
    )


def spectral_solver(spectrum: Array, basis: Basis, shape: Shape) -> "SpectralSolver":
    """See `invconv.kernels.frequencies.spectrum.spectral_solver`."""
    # a constant: the rule of the linear solve has the derivative
    return SpectralSolver(spectrum, basis, shape, *_invert(lax.stop_gradient(spectrum)))


@jax.jit  # type: ignore[untyped-decorator]
def _invert(spectrum: Array) -> tuple[Array, Array]:
    # the library's inverse takes long for each matrix
    inverse = 1 / spectrum if spectrum.shape[-1] == 1 else jnp.linalg.inv(spectrum)
    return inverse, core.inverses_keep_accuracy(spectrum, inverse)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SpectralSolver:
    """A transform, one C x C solve per frequency (or a product with its inverse), and back."""

    spectrum: Array  # (F, C, C)
    basis: Basis = field(metadata={"static": True})
    shape: Shape = field(metadata={"static": True})
    inverse: Array  # of each matrix
    accurate: Array  # 0-d bool: whether the inverse may be used

    @property
    def plan(self) -> Plan:
        kept = "cached inverse where accurate, else solve"
        if isinstance(self.accurate, jax.Array) and readable(self.accurate):
            kept = "cached inverse" if self.accurate else "solve"
        return Plan("spectral", per_frequency=kept, frequencies=self.spectrum.shape[0])

    def as_numpy(self) -> core.SpectralProduct | None:
        """Return a product with the inverses on NumPy arrays, or None if they may not be used."""
        if not readable(self.accurate) or not self.accurate:
            return None
        return core.SpectralProduct(to_numpy(self.inverse), self.basis, self.shape)

    @jax.jit  # type: ignore[untyped-decorator]
    def __call__(self, y: Array) -> Array:
        if y.shape[0] == 0:
            return y
        spectrum, inverse, accurate = self.spectrum, self.inverse, self.accurate
        scale = core.range_scale(lax.stop_gradient(y))
        # JAX's rule for a linear solve: the derivative keeps only the solution
        x_hat = lax.custom_linear_solve(
            lambda x: _multiply(spectrum, x),
            _to_frequencies(self.basis, y * scale),
            lambda _, b: _at_the_frequencies(spectrum, inverse, accurate, b),
            lambda _, b: _at_the_frequencies(spectrum.mT, inverse.mT, accurate, b),
        )
        return _from_frequencies(self.basis, x_hat, self.shape) / scale


def _multiply(matrices: Array, y_hat: Array) -> Array:
    if matrices.shape[-1] > core.FEW:
        return matmul(matrices, y_hat)
    matrices = beside(matrices, y_hat)
    columns = zip(jnp.moveaxis(matrices, 2, 0), jnp.moveaxis(y_hat, 1, 0), strict=True)
    return sum(column[:, :, None] * row[:, None] for column, row in columns)


def _to_frequencies(basis: Basis, y: Array) -> Array:
    """Transform y (B, C, *shape), to (F, C, B), without a gather of the batch."""
    batch, channels = y.shape[:2]
    y = _along_walls(basis, y, back=False)
    y = _along_circles(basis, y, "rfft", tuple(y.shape[2:]))
    return jnp.transpose(y.reshape(batch, channels, size(y.shape[2:])), (2, 1, 0))


def _from_frequencies(basis: Basis, x_hat: Array, shape: Shape) -> Array:
    _, channels, batch = x_hat.shape
    x = jnp.transpose(x_hat, (2, 1, 0)).reshape(batch, channels, *basis.frequencies(shape))
    return _along_walls(basis, _along_circles(basis, x, "irfft", shape), back=True)


def _along_circles(basis: Basis, x: Array, kind: str, shape: Shape) -> Array:
    """Transform x (B, C, *shape) along its periodic axes, which are moved last meanwhile."""
    if not basis.closed:
        return x
    closed, ends = [2 + axis for axis in basis.closed], list(range(-len(basis.closed), 0))
    lengths = tuple(shape[axis] for axis in basis.closed)
    x = _run(len(ends), False)(jnp.moveaxis(x, closed, ends), kind=kind, lengths=lengths)
    return jnp.moveaxis(x, ends, closed)


def _along_walls(basis: Basis, x: Array, back: bool) -> Array:
    """Transform along axes that are not periodic; no reshape joins short ones with the batch."""
    for axis, waves in enumerate(basis.waves, 2):
        if waves is not None and x.shape[axis] > BY_MATRIX:
            x = waves.transform(x, (axis,), back=back)
        elif waves is not None:
            turned = jnp.asarray(waves.matrix(x.shape[axis], back).T, x.dtype)
            x = jnp.moveaxis(matmul(jnp.moveaxis(x, axis, -1), turned), -1, axis)
    return x


def _at_the_frequencies(spectrum: Array, inverse: Array, accurate: Array, y: Array) -> Array:
    """Return K_hat(f)^-1 y(f) for y of shape (F, C, B)."""
    multiply, solve = partial(_multiply, inverse), partial(eliminate, spectrum)
    if spectrum.shape[-1] == 1:
        return y / spectrum
    return lax.cond(accurate, multiply, solve, y)
