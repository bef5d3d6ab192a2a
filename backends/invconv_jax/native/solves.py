"""Products at full precision, and solves with small matrices that keep a batch on its devices."""

from __future__ import annotations

import functools

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv_jax.native.partition import SplitByBatch, beside

_FEW = 4  # channels: up to this number a product is slower to call than to write out


def _substitute(matrix: Array, rhs: Array, *, lower: bool) -> Array:
    """Solve T x = b for b of shape (C, ...)."""
    rows = rhs.reshape(rhs.shape[0], -1)
    x = lax.linalg.triangular_solve(matrix, rows, left_side=True, lower=lower)
    return x.reshape(rhs.shape)


def _eliminate(matrices: Array, rhs: Array) -> Array:
    """Solve M_f x_f = b_f for b of shape (F, C, ...)."""
    columns = rhs.reshape(*rhs.shape[:2], -1)
    return jnp.linalg.solve(matrices, columns).reshape(rhs.shape)


substitute = SplitByBatch("invconv_substitute", _substitute, (0,))
eliminate = SplitByBatch("invconv_eliminate", _eliminate, (0, 1))


@jax.jit  # type: ignore[untyped-decorator]
def matmul(a: Array, b: Array) -> Array:
    """See `invconv.kernels.primitives.matmul`; accelerators would round to fewer bits."""
    return jnp.matmul(beside(a, b), beside(b, a), precision=lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames="lower")
def triangular_solve(matrix: Array, rhs: Array, *, lower: bool) -> Array:
    """See `invconv.kernels.primitives.triangular_solve`."""
    return lax.custom_linear_solve(
        lambda x: matmul(matrix, x),
        rhs,
        lambda _, b: substitute(matrix, b, lower=lower),
        lambda _, b: substitute(matrix.mT, b, lower=not lower),
    )


@jax.custom_jvp  # type: ignore[untyped-decorator]
def nan_where_singular(x: Array, log_det: Array) -> Array:
    """See `invconv.kernels.primitives.nan_where_singular`.

    The derivative of `where` itself would keep an image of zeros.
    """
    return jnp.where(log_det == -jnp.inf, jnp.full_like(log_det, jnp.nan), x)


@nan_where_singular.defjvp  # type: ignore[untyped-decorator]
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, log_det = primals
    scale = jnp.where(log_det == -jnp.inf, jnp.full_like(log_det, jnp.nan), 1)
    return nan_where_singular(x, log_det), tangents[0] * scale


def combine(matrices: Array, parts: list[Array]) -> Array:
    """Return the sum of matrices (T, C, C) times T parts (C, M, N)."""
    count, channels, _ = matrices.shape
    if channels > _FEW:
        weights = jnp.moveaxis(matrices, 0, 1).reshape(channels, count * channels)
        return jnp.tensordot(weights, jnp.concatenate(parts), 1, precision=lax.Precision.HIGHEST)
    pairs = zip(matrices[..., None], parts, strict=True)
    terms = (m[:, c : c + 1] * part[c : c + 1] for m, part in pairs for c in range(channels))
    return functools.reduce(jnp.add, terms)
