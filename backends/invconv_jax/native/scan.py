"""Causal solves as a loop over wavefronts that XLA compiles once, whatever the image size.

The loop runs in exported programs, on accelerators without CUDA, under `vmap` over matrices there,
and if none of our kernels runs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array, Shape, readable
from invconv.arrays.stencil import Offset
from invconv.kernels.plain.lanes import lanes_of
from invconv.kernels.primitives import flat
from invconv.kernels.wavefront import CausalStencil, inverse_keeps_accuracy
from invconv_jax.native.solves import matmul, substitute, triangular_solve

_FEW = 4  # channels: up to this number a product is slower to call than to write out


@dataclass(frozen=True)
class Geometry:
    """Settings of a solve, without values; hashable, so that JAX compiles once for each.

    Attributes
    ----------
    lower, reach, direction, dilation, slope
        As in `invconv.kernels.wavefront.CausalStencil`.
    shape : tuple of int
        The grid.
    """

    lower: bool
    reach: tuple[Offset, ...]
    direction: tuple[int, ...]
    dilation: tuple[int, ...]
    slope: tuple[int, ...]
    shape: Shape

    @classmethod
    def of(cls, causal: CausalStencil, shape: Shape) -> Geometry:
        """Return the geometry of a stencil on a grid."""
        c = causal
        return cls(c.lower, c.reach, c.direction, c.dilation, c.slope, tuple(shape))

    def transpose(self) -> Geometry:
        """Return the geometry of the transposed operator."""
        flipped = tuple(-s for s in self.direction)
        return Geometry(not self.lower, self.reach, flipped, self.dilation, self.slope, self.shape)

    @property
    def levels(self) -> int:
        """The number of wavefronts."""
        axes = zip(self.slope, self.shape, self.dilation, strict=True)
        return 1 + sum(w * ((n - 1) // d) for w, n, d in axes)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["inverse", "accurate"], meta_fields=[]
)
@dataclass(frozen=True, eq=False)
class Scan:
    """A solve front after front: x = D^-1 (y - sum of taps[t] x at earlier fronts).

    Attributes
    ----------
    inverse : array, shape (C, C), or None
        D^-1; if None, every front solves with D.
    accurate : 0-d bool array, or None
        Whether D^-1 may be used, if only the device knows; None if it may.
    """

    inverse: Array | None
    accurate: Array | None

    @staticmethod
    def of(diagonal: Array, lower: bool) -> Scan:
        """Invert D, as a constant: the rule of the linear solve has the derivative."""
        inverse, accurate = _invert(lax.stop_gradient(diagonal), lower=lower)
        if not readable(accurate):
            return Scan(inverse, accurate)
        return Scan(inverse if accurate else None, None)

    def plan(self, geometry: Geometry) -> dict[str, Any]:
        """Return how the solve runs."""
        corner = "triangular solve" if self.inverse is None else "cached inverse"
        if self.accurate is not None:
            corner = "cached inverse where accurate, else triangular solve"
        return {"method": "wavefront", "at the pixel": corner, "levels": geometry.levels}

    def transpose(self) -> Scan:
        """Return the scan for D^T."""
        return Scan(None if self.inverse is None else self.inverse.mT, self.accurate)

    def solve(self, geometry: Geometry, matrices: Array, y: Array) -> Array:
        """Return x, shape (B, C, *shape), for D and the taps (1 + T, C, C)."""
        diagonal, taps = matrices[0], matrices[1:]

        def multiply(y: Array) -> Array:
            return _loop(geometry, None, matmul(self.inverse, taps), _product(self.inverse, y))

        def divide(y: Array) -> Array:
            return _loop(geometry, diagonal, taps, y)

        if self.inverse is None:
            return divide(y)
        if self.accurate is None:
            return multiply(y)
        return lax.cond(self.accurate, multiply, divide, y)


@functools.partial(jax.jit, static_argnames="lower")
def _invert(matrix: Array, lower: bool) -> tuple[Array, Array]:
    """Return the inverse of a triangular matrix, and whether it may be used."""
    inverse = triangular_solve(matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype), lower=lower)
    return inverse, inverse_keeps_accuracy(matrix, inverse)


def _product(matrix: Array | None, y: Array) -> Array:
    return matmul(matrix, flat(y)).reshape(y.shape)


def _loop(geometry: Geometry, diagonal: Array | None, taps: Array, y: Array) -> Array:
    """Solve level after level; D is the identity if ``diagonal`` is None."""
    (count, channels, _), batch, lower = taps.shape, y.shape[0], geometry.lower
    if y.size == 0 or (count == 0 and diagonal is None):
        return y
    if count == 0:
        return jnp.moveaxis(substitute(diagonal, jnp.moveaxis(y, 1, 0), lower=lower), 0, 1)
    lanes = lanes_of(geometry, geometry.shape, np)
    width = lanes.gather.shape[1]
    rows = jnp.pad(jnp.transpose(flat(y), (2, 1, 0)), ((0, 1), (0, 0), (0, 0)))
    rows = jnp.transpose(rows[lanes.gather], (0, 2, 1, 3))  # (L, C, M, B)
    window = jnp.zeros((channels, lanes.back * width, batch), y.dtype)

    def step(window: Array, level: tuple[Array, Array]) -> tuple[Array, Array]:
        rhs, inside = level
        seen = jnp.pad(window, ((0, 0), (0, 1), (0, 0)))
        x = rhs - _sum(taps, [seen[:, reads] for reads in lanes.reads])
        if diagonal is not None:
            x = substitute(diagonal, x, lower=lower)
        x = jnp.where(inside[:, None], x, jnp.zeros_like(x))
        return jnp.concatenate([window[:, width:], x], axis=1), x

    levels = lax.scan(step, window, (rows, lanes.inside))[1]
    x = jnp.transpose(levels, (0, 2, 1, 3)).reshape(-1, channels, batch)[lanes.places]
    return jnp.transpose(x, (2, 1, 0)).reshape(y.shape)


def _sum(matrices: Array, parts: list[Array]) -> Array:
    """Return the sum of matrices (T, C, C) times T parts (C, M, B)."""
    count, channels, _ = matrices.shape
    if channels > _FEW:
        weights = jnp.moveaxis(matrices, 0, 1).reshape(channels, count * channels)
        return jnp.tensordot(weights, jnp.concatenate(parts), 1, precision=lax.Precision.HIGHEST)
    pairs = zip(matrices[..., None], parts, strict=True)
    terms = (m[:, c : c + 1] * part[c : c + 1] for m, part in pairs for c in range(channels))
    return functools.reduce(jnp.add, terms)
