"""Causal solves as a loop over wavefronts that XLA compiles once, whatever the image size.

The loop overwrites its right-hand side front by front, at the places of `native.fronts`. It runs in
exported programs, on accelerators without CUDA, and if none of our kernels runs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array, readable
from invconv.kernels.primitives import flat
from invconv.kernels.wavefront import inverse_keeps_accuracy
from invconv_jax.native.fronts import Geometry, Places
from invconv_jax.native.images import enter, leave
from invconv_jax.native.solves import combine, matmul, substitute, triangular_solve


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
            return _loop(geometry, self.inverse, True, taps, y)

        def substitute(y: Array) -> Array:
            return _loop(geometry, diagonal, False, taps, y)

        if self.inverse is None:
            return substitute(y)
        if self.accurate is None:
            return multiply(y)
        return lax.cond(self.accurate, multiply, substitute, y)


@functools.partial(jax.jit, static_argnames="lower")
def _invert(matrix: Array, lower: bool) -> tuple[Array, Array]:
    """Return the inverse of a triangular matrix, and whether it may be used."""
    inverse = triangular_solve(matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype), lower=lower)
    return inverse, inverse_keeps_accuracy(matrix, inverse)


def _loop(geometry: Geometry, matrix: Array, inverted: bool, taps: Array, y: Array) -> Array:
    """Overwrite y by x, front by front; ``matrix`` is D^-1 if it is ``inverted``, else D."""
    g = geometry
    if y.size == 0:
        return y
    count, channels, _ = taps.shape
    if count == 0 and inverted:
        return matmul(matrix, flat(y)).reshape(y.shape)
    if count == 0:
        return jnp.moveaxis(substitute(matrix, jnp.moveaxis(y, 1, 0), lower=g.lower), 0, 1)
    places = Places.of(g)
    buffer = enter(places, y)
    first, length = places.levels(y.shape[0])
    sizes = (channels, 1, places.count, buffer.shape[-1])
    weights = -taps
    if inverted:
        weights = jnp.concatenate([matrix[None], matmul(matrix, weights)])

    zero = jnp.zeros((), np.uint32)  # unsigned: JAX would test signed indices for negative ones

    def at(place: tuple[Any, Any]) -> list[Any]:
        row, column = (jnp.asarray(i).astype(np.uint32) for i in place)
        return [zero, column, row, zero]

    def window(buffer: Array, place: tuple[Any, Any]) -> Array:
        return lax.squeeze(lax.dynamic_slice(buffer, at(place), sizes), (1,))

    def step(level: Any, buffer: Array) -> Array:
        front = places.front(level)
        y = window(buffer, front)
        earlier = [window(buffer, places.earlier(front, o)) for o in g.reach]
        if inverted:
            x = combine(weights, [y, *earlier])
        else:
            x = substitute(matrix, y + combine(weights, earlier), lower=g.lower)
        # a huge unsigned number for a line that has not begun
        passed = jnp.asarray(level - first).astype(np.uint32)
        x = jnp.where(passed < length, x, y)
        return lax.dynamic_update_slice(buffer, x[:, None], at(front))

    levels = np.int32(0), np.int32(g.levels)
    return leave(places, lax.fori_loop(*levels, step, buffer))
