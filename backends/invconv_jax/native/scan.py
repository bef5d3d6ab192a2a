"""Causal solves as a loop over wavefronts that XLA compiles once, whatever the image size.

The loop runs in exported programs, on accelerators without CUDA, under `vmap` over matrices there,
and if none of our kernels runs.
"""

from __future__ import annotations

import numpy as np
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv.arrays.stencil import Sweep
from invconv.kernels.primitives import flat
from invconv.kernels.wavefront import inverse_keeps_accuracy, lanes_of
from invconv_jax.native.products import matmul, substitute, triangular_solve


def solve(sweep: Sweep, matrices: Array, y: Array) -> Array:
    """Return x, shape (B, C, *shape), for D and the taps (1 + T, C, C), without a derivative."""
    diagonal, taps = matrices[0], matrices[1:]
    unit = jnp.eye(diagonal.shape[0], dtype=diagonal.dtype)
    inverse = triangular_solve(diagonal, unit, lower=sweep.lower)

    def multiply(y: Array) -> Array:
        product = matmul(inverse, flat(y)).reshape(y.shape)
        return _loop(sweep, None, matmul(inverse, taps), product)

    def divide(y: Array) -> Array:
        return _loop(sweep, diagonal, taps, y)

    return lax.cond(inverse_keeps_accuracy(diagonal, inverse), multiply, divide, y)


def _loop(sweep: Sweep, diagonal: Array | None, taps: Array, y: Array) -> Array:
    """Solve level after level; D is the identity if ``diagonal`` is None."""
    (count, channels, _), batch, lower = taps.shape, y.shape[0], sweep.lower
    if y.size == 0 or (count == 0 and diagonal is None):
        return y
    if count == 0:
        return jnp.moveaxis(substitute(diagonal, jnp.moveaxis(y, 1, 0), lower=lower), 0, 1)
    lanes = lanes_of(sweep, np)
    width = lanes.gather.shape[1]
    rows = jnp.pad(jnp.transpose(flat(y), (2, 1, 0)), ((0, 1), (0, 0), (0, 0)))
    rows = jnp.transpose(rows[lanes.gather], (0, 2, 1, 3))  # (L, C, M, B)
    weights = jnp.moveaxis(taps, 0, 1).reshape(channels, count * channels)
    window = jnp.zeros((channels, lanes.back * width, batch), y.dtype)

    def step(window: Array, level: tuple[Array, Array]) -> tuple[Array, Array]:
        rhs, inside = level
        seen = jnp.pad(window, ((0, 0), (0, 1), (0, 0)))
        read = jnp.concatenate([seen[:, reads] for reads in lanes.reads])
        x = rhs - jnp.tensordot(weights, read, 1, precision=lax.Precision.HIGHEST)
        if diagonal is not None:
            x = substitute(diagonal, x, lower=lower)
        x = jnp.where(inside[:, None], x, jnp.zeros_like(x))
        return jnp.concatenate([window[:, width:], x], axis=1), x

    levels = lax.scan(step, window, (rows, lanes.inside))[1]
    x = jnp.transpose(levels, (0, 2, 1, 3)).reshape(-1, channels, batch)[lanes.places]
    return jnp.transpose(x, (2, 1, 0)).reshape(y.shape)
