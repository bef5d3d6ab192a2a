"""Copy images into the layout of `native.fronts`, (C, columns, rows, B residues), and back."""

from __future__ import annotations

import math

import numpy as np
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv_jax.native.fronts import Geometry, Places


def enter(places: Places, y: Array) -> Array:
    """Return images (B, C, *shape) in the layout of fronts, with zeros between the pixels."""
    size, lead = places.rows * places.columns, places.lead
    flat = _flatten(_pad(places, _arrange(places.geometry, y)))
    flat = _lengthen(flat[..., : size - lead], -1, size, before=lead)
    rows = flat.reshape(*flat.shape[:-1], places.rows, places.columns)
    return jnp.transpose(rows, (1, 3, 2, 0))


def leave(places: Places, x: Array) -> Array:
    """Undo `enter`."""
    rows = jnp.transpose(x, (3, 0, 2, 1))
    return _rearrange(places.geometry, _crop(places, _flatten(rows)))


def _arrange(geometry: Geometry, y: Array) -> Array:
    """Return images (B, C, *shape) as (B residues, C, *others, line)."""
    g = geometry
    y = _flip(g, y)
    for a, (_, m, d) in enumerate(_split(g)):
        y = _lengthen(y, 2 + 2 * a, m * d)
        y = y.reshape(*y.shape[: 2 + 2 * a], m, d, *y.shape[3 + 2 * a :])
    y = jnp.transpose(y, _order(g))
    return y.reshape(y.shape[0] * math.prod(g.dilation), *y.shape[1 + len(g.shape) :])


def _rearrange(geometry: Geometry, x: Array) -> Array:
    """Undo `_arrange`."""
    g = geometry
    x = x.reshape(x.shape[0] // math.prod(g.dilation), *g.dilation, *x.shape[1:])
    x = jnp.transpose(x, np.argsort(_order(g)).tolist())
    for a, (n, m, d) in enumerate(_split(g)):
        x = x.reshape(*x.shape[: 2 + a], m * d, *x.shape[4 + a :])
        x = lax.slice_in_dim(x, 0, n, axis=2 + a)
    return _flip(g, x)


def _pad(places: Places, y: Array) -> Array:
    """Return images (B residues, C, *others, line) as (B residues, C, lines, pitch)."""
    g = places.geometry
    for axis in reversed(g.others):
        y = _lengthen(y, -1, places.pitches[axis])
        y = _flatten(y) if axis != g.others[0] else y
    return y if g.others else y[..., None, :]


def _crop(places: Places, flat: Array) -> Array:
    """Undo `_pad`; the flat memory may end with the last pixel."""
    g = places.geometry
    x = flat[..., places.lead :]
    for axis in g.others:
        size, pitch = g.coarse[axis], places.pitches[axis]
        last, kept = (size - 1) * pitch, min(pitch, x.shape[-1] - (size - 1) * pitch)
        lines = x[..., :last].reshape(*x.shape[:-1], size - 1, pitch)[..., :kept]
        x = jnp.concatenate([lines, x[..., None, last : last + kept]], axis=-2)
    return x[..., : g.coarse[g.line]]


def _flatten(y: Array) -> Array:
    return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])


def _lengthen(y: Array, axis: int, size: int, before: int = 0) -> Array:
    """Pad an axis of an array with zeros to a size."""
    widths = [(0, 0)] * y.ndim
    widths[axis] = (before, size - before - y.shape[axis])
    return jnp.pad(y, widths) if any(widths[axis]) else y


def _flip(geometry: Geometry, y: Array) -> Array:
    """Flip images (B, C, *shape), so that all directions are +1."""
    backward = [2 + a for a, s in enumerate(geometry.direction) if s < 0]
    return lax.rev(y, backward) if backward else y


def _split(geometry: Geometry) -> list[tuple[int, int, int]]:
    """Return, for each axis: its pixels, pixels of a residue class, and number of residues."""
    return list(zip(geometry.shape, geometry.coarse, geometry.dilation, strict=True))


def _order(geometry: Geometry) -> tuple[int, ...]:
    """Return the new order of the axes (B, C, pixels, residues, pixels, residues, ...)."""
    residues = range(3, 3 + 2 * len(geometry.shape), 2)
    return (0, *residues, 1, *(2 + 2 * a for a in (*geometry.others, geometry.line)))
