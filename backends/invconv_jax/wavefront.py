"""Causal solves: a loop over wavefronts that is compiled once, whatever the image size.

The loop overwrites its right-hand side front by front, in the layout of `invconv_jax.fronts`.
JAX differentiates it by the rule for a linear solve (`lax.custom_linear_solve`), which keeps the
solution and nothing else.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays import Array, Shape, readable
from invconv.primitives import flat
from invconv.stencil import Stencil
from invconv.wavefront import CausalStencil, inverse_keeps_accuracy
from invconv_jax.bands import Bands, solve_in_bands
from invconv_jax.convolve import PRECISION, correlate
from invconv_jax.fronts import Geometry
from invconv_jax.solves import matmul, substitute, triangular_solve


def causal_solver(stencil: CausalStencil, shape: Shape) -> ScanSolver:
    """See `invconv.wavefront.causal_solver`."""
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
    earlier = Stencil(causal.offsets, taps)

    def solve(geometry: Geometry, corner: Corner, earlier: Stencil, rhs: Array) -> Array:
        at_once = functools.partial(_substitute, corner, earlier.taps)
        return solve_in_bands(at_once, geometry, bands, earlier, rhs)

    return lax.custom_linear_solve(
        lambda x: correlate(causal.stencil(), x),
        y,
        lambda _, b: solve(g, corner, earlier, b),
        lambda _, b: solve(g.transpose(), corner.transpose(), earlier.transpose(), b),
    )


def _substitute(corner: Corner, taps: Array, geometry: Geometry, y: Array) -> Array:
    """Solve with D^-1 or D, whichever the corner says."""

    def multiply(y: Array) -> Array:
        scaled = matmul(corner.inverse, flat(y)).reshape(y.shape)
        inner = matmul(corner.inverse, taps)
        return _loop(geometry, None, inner, scaled)

    def solve(y: Array) -> Array:
        return _loop(geometry, corner.diagonal, taps, y)

    if corner.inverse is None:
        return solve(y)
    if corner.accurate is None:
        return multiply(y)
    return lax.cond(corner.accurate, multiply, solve, y)


def _loop(geometry: Geometry, diagonal: Array | None, taps: Array, y: Array) -> Array:
    """Overwrite y by x, front by front."""
    g = geometry
    count, channels, _ = taps.shape
    if count == 0 and diagonal is None:
        return y
    if count == 0:
        return jnp.moveaxis(substitute(diagonal, jnp.moveaxis(y, 1, 0), lower=g.lower), 0, 1)
    depth = max(g.drop(o) for o in g.reach)
    before = [max(0, *(o[a] for o in g.reach)) for a in g.others]
    after = [max(0, *(-o[a] for o in g.reach)) for a in g.others]
    rows = g.enter(y)
    sizes = (1, *rows.shape[1:])
    still = (0,) * (1 + len(g.shape))  # the channels and the residues
    padding = [(depth, 0), *[(0, 0) for _ in still], *zip(before, after, strict=True), (0, 0)]
    pixels = g.enter(jnp.ones((1, 1, *g.shape), bool)) if g.looks_ahead else None
    weights = jnp.moveaxis(taps, 0, 1).reshape(channels, count * channels)

    def front(buffer: Array, level: Any, offset: tuple[int, ...]) -> Array:
        lead = [b - offset[a] for b, a in zip(before, g.others, strict=True)]
        start = (level + depth - g.drop(offset), *still, *lead, 0)
        return lax.dynamic_slice(buffer, start, sizes)[0]

    def step(level: Any, buffer: Array) -> Array:
        earlier = jnp.concatenate([front(buffer, level, o) for o in g.reach])
        x = front(buffer, level, here) - jnp.tensordot(weights, earlier, 1, precision=PRECISION)
        if diagonal is not None:
            x = substitute(diagonal, x, lower=g.lower)
        if pixels is not None:
            x = jnp.where(pixels[level], x, 0)
        return lax.dynamic_update_slice(buffer, x[None], (level + depth, *still, *before, 0))

    here = (0,) * len(g.shape)
    buffer = lax.fori_loop(0, g.levels, step, jnp.pad(rows, padding))
    inner = [slice(b, b + g.coarse[a]) for b, a in zip(before, g.others, strict=True)]
    return g.leave(buffer[(slice(depth, None), *[slice(None) for _ in still], *inner)])
