"""Causal solves: a loop over wavefronts that is compiled once, whatever the image size.

The loop overwrites its right-hand side front by front, at the places of `invconv_jax.fronts`.
JAX differentiates it by the rule for a linear solve (`lax.custom_linear_solve`), which keeps the
solution and nothing else.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from invconv.arrays import Array, Shape, readable
from invconv.primitives import flat
from invconv.wavefront import CausalStencil, inverse_keeps_accuracy
from invconv_jax.bands import Bands, solve_in_bands
from invconv_jax.convolve import correlate
from invconv_jax.fronts import Geometry, Places
from invconv_jax.images import enter, leave
from invconv_jax.solves import combine, matmul, substitute, triangular_solve


def causal_solver(stencil: CausalStencil, shape: Shape) -> ScanSolver:
    """See `invconv.wavefront.causal_solver`."""
    stencil = stencil.within(shape)
    # the rule of the solve differentiates it; what it solves with is a constant
    inverse, accurate = _invert(lax.stop_gradient(stencil.diagonal), lower=stencil.lower)
    if not readable(accurate):
        return ScanSolver(stencil, shape, inverse, accurate)
    return ScanSolver(stencil, shape, inverse if accurate else None, None)


@functools.partial(jax.jit, static_argnames="lower")
def _invert(matrix: Array, lower: bool) -> tuple[Array, Array]:
    """Return the inverse of a triangular matrix, and whether it may be used."""
    inverse = triangular_solve(matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype), lower=lower)
    return inverse, inverse_keeps_accuracy(matrix, inverse)


@dataclass(frozen=True, eq=False)
class ScanSolver:
    """Front after front: x = D^-1 (y - sum of taps[t] x at earlier fronts).

    Attributes
    ----------
    causal : CausalStencil
    shape : tuple of int
        The grid.
    inverse : array, shape (C, C), or None
        D^-1; without it D is solved with at every front.
    accurate : 0-d bool array, or None
        Whether D^-1 may be used, where only the device knows; None where it may.
    """

    causal: CausalStencil
    shape: Shape
    inverse: Array | None
    accurate: Array | None

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        corner = "triangular solve" if self.inverse is None else "cached inverse"
        if self.accurate is not None:
            corner = "cached inverse where accurate, else triangular solve"
        levels = Geometry.of(self.causal, self.shape).levels
        return {"method": "wavefront", "at the pixel": corner, "levels": levels}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        c = self.causal
        geometry = Geometry.of(c, self.shape)
        bands = Bands.of(geometry, y.shape, y.dtype.itemsize)
        corner = Corner(c.diagonal, self.inverse, self.accurate)
        return _solve(geometry, bands, corner, c.taps, y)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["diagonal", "inverse", "accurate"],
    meta_fields=[],
)
@dataclass(frozen=True, eq=False)
class Corner:
    """D, and its inverse: as in `ScanSolver`."""

    diagonal: Array
    inverse: Array | None
    accurate: Array | None

    def transpose(self) -> Corner:
        """Return that of D^T."""
        inverse = None if self.inverse is None else self.inverse.mT
        return Corner(self.diagonal.mT, inverse, self.accurate)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _solve(geometry: Geometry, bands: Bands, corner: Corner, taps: Array, y: Array) -> Array:
    """Return x, with the derivatives of a linear solve."""
    g = geometry
    causal = CausalStencil(
        corner.diagonal, g.lower, taps, g.reach, g.direction, g.dilation, g.slope
    )

    def solve(geometry: Geometry, corner: Corner, taps: Array, rhs: Array) -> Array:
        at_once = functools.partial(_substitute, corner, taps)
        return solve_in_bands(at_once, geometry, bands, rhs)

    return lax.custom_linear_solve(
        lambda x: correlate(causal.stencil(), x),
        y,
        lambda _, b: solve(g, corner, taps, b),
        lambda _, b: solve(g.transpose(), corner.transpose(), taps.mT, b),
    )


def _substitute(corner: Corner, taps: Array, geometry: Geometry, y: Array) -> Array:
    """Solve with D^-1 or D, whichever the corner says."""

    def multiply(y: Array) -> Array:
        return _loop(geometry, corner.inverse, True, taps, y)

    def solve(y: Array) -> Array:
        return _loop(geometry, corner.diagonal, False, taps, y)

    if corner.inverse is None:
        return solve(y)
    if corner.accurate is None:
        return multiply(y)
    return lax.cond(corner.accurate, multiply, solve, y)


def _loop(geometry: Geometry, matrix: Array, inverted: bool, taps: Array, y: Array) -> Array:
    """Overwrite y by x, front by front, with D^-1 for a matrix if it is inverted, else D."""
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

    zero = jnp.zeros((), np.uint32)  # unsigned: JAX would see whether indices are negative

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
        # very many of a line that is yet to begin
        passed = jnp.asarray(level - first).astype(np.uint32)
        x = jnp.where(passed < length, x, y)
        return lax.dynamic_update_slice(buffer, x[:, None], at(front))

    levels = first.min(), np.int32(g.levels)
    return leave(places, lax.fori_loop(*levels, step, buffer))
