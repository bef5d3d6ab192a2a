"""Solving an autoregressive convolution by wavefronts (the paper's fast inversion, section 3.1).

Pixel p depends on the pixels p + offset that come before it. Number the pixels by

    level(p) = w . (p // dilation)     with w . o > 0 for every offset o in tap units,

counted along the direction of the convolution. The pixels of one level do not depend on each
other, and since the level is linear, all pixels that a tap reads for one level lie in one earlier
level. So a solve is one matrix product and one triangular solve per level, for corner and
raster masks, any direction, dilation and number of axes alike.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    identity,
    namespace,
    readable,
    size,
    to_numpy,
    zeros,
)
from invconv.arrays.registry import Primitive
from invconv.arrays.stencil import CausalStencil, Sweep, dot
from invconv.kernels.order import inverse_limit
from invconv.kernels.primitives import (
    Plan,
    Solver,
    from_pixel_rows,
    matmul,
    pixel_rows,
    triangular_solve,
)

Index: TypeAlias = Any  # integers or bools of NumPy or torch


class Lanes(NamedTuple):
    """The places of a grid's pixels: L levels, M lanes, N pixels.

    Pixels are counted along the convolution's direction. Those that differ in the last axis only,
    by multiples of the dilation, form a lane. A lane has at most one pixel per level, and for each
    level a tap reads other lanes at an earlier level, a fixed number of levels before:

        x[level] = D^-1 (y[level] - [taps] window[reads])

    with the last levels in a window. Plain wavefronts, torch's exported programs and JAX run this
    loop.
    """

    gather: Index  # shape (L, M): the pixel of each place; N for a place without a pixel
    inside: Index  # bool, shape (L, M): whether the place has a pixel
    # shape (T, M): the place in the window that each tap reads; the window's end outside the grid
    reads: Index
    places: Index  # shape (N,): the place of each pixel
    back: int  # the number of levels of the window


def lanes_of(c: Sweep, xp: Any, **device: Any) -> Lanes:
    """Return the lanes of the grid of a stencil that is `within` it; ``xp`` is numpy or torch."""
    shape = c.shape
    *others, last = range(len(shape))
    n, step = shape[last], c.dilation[last]
    sizes = (*(shape[k] for k in others), step)
    *along, residue = _unravel(xp.arange(math.prod(sizes), **device), sizes)
    start = sum(c.slope[k] * (along[k] // c.dilation[k]) for k in others) + 0 * residue
    at = xp.arange(c.levels, **device)[:, None] - start  # place of a level in its lane
    inside = (at >= 0) & (at * step + residue < n)
    pixel = _ravel(c.direction, shape, [*along, at * step + residue])
    drops = [dot(c.slope, offset) for offset in c.reach]
    back, count = max(drops, default=0), math.prod(sizes)
    reads = []
    for offset, drop in zip(c.reach, drops, strict=True):
        there = [along[k] - c.dilation[k] * offset[k] for k in others]
        known = residue >= 0
        for k in others:
            known = known & (there[k] >= 0) & (there[k] < shape[k])
        lane = _ravel((1,) * len(sizes), sizes, [*there, residue])
        reads.append(xp.where(known, (back - drop) * count + lane, back * count))
    pixels = zip(_unravel(xp.arange(size(shape), **device), shape), c.direction, shape, strict=True)
    *along, end = (p if s > 0 else n - 1 - p for p, s, n in pixels)
    level = sum(c.slope[k] * (along[k] // c.dilation[k]) for k in others) + end // step
    places = level * count + _ravel((1,) * len(sizes), sizes, [*along, end % step])
    gather = xp.where(inside, pixel, math.prod(shape))
    return Lanes(gather, inside, xp.stack(reads) if reads else gather[:0], places, back)


def _unravel(index: Index, shape: Shape) -> list[Index]:
    return [index // math.prod(shape[k + 1 :]) % n for k, n in enumerate(shape)]


def _ravel(direction: tuple[int, ...], shape: Shape, along: list[Index]) -> Index:
    """Return the flat indices of coordinates that are counted along a direction."""
    total = 0
    for p, s, n in zip(along, direction, shape, strict=True):
        total = total * n + (p if s > 0 else n - 1 - p)
    return total


@Primitive
def causal_solver(stencil: CausalStencil, shape: Shape) -> Solver:
    """Return the map y -> x, both (B, C, *shape), that solves ``stencil.stencil()`` x = y."""
    return WavefrontSolver(stencil.within(shape), inverse_at_the_pixel(stencil), shape)


def inverse_at_the_pixel(stencil: CausalStencil) -> Array | None:
    """Return D^-1 if a product with it is as accurate as a triangular solve, else None."""
    d = stencil.diagonal
    if not readable(d):
        return None
    # |D|_1 max 1/|d_ii| <= |D|_1 |D^-1|_1, since 1/d_ii are on the diagonal of D^-1. If that bound
    # is too large, as for a zero pivot or an inf, do not solve: a library might raise.
    values = np.abs(to_numpy(d))
    norm, limit = values.sum(axis=0).max(), inverse_limit(len(values))
    if not norm < limit * values.diagonal().min():
        return None
    inverse = triangular_solve(d, identity(d.shape[0], d), lower=stencil.sweep.lower)
    return inverse if norm * np.abs(to_numpy(inverse)).sum(axis=0).max() <= limit else None


def inverse_keeps_accuracy(matrix: Array, inverse: Array) -> Array:
    """Tell, as a 0-d bool array, whether a product with D^-1 is as accurate as a solve with D."""
    xp = namespace(matrix)
    norm, inverse_norm = (xp.max(xp.sum(xp.abs(m), axis=0)) for m in (matrix, inverse))
    return norm * inverse_norm <= inverse_limit(int(matrix.shape[0]))


@dataclass(frozen=True, eq=False)
class WavefrontSolver:
    """A solve level after level: x = D^-1 (y - sum of taps[t] x at earlier levels).

    If ``inverse``, D^-1, is given, y and the taps are multiplied by it at the start.
    """

    causal: CausalStencil
    inverse: Array | None
    shape: Shape

    @property
    def plan(self) -> Plan:
        corner = "triangular solve" if self.inverse is None else "cached inverse"
        return Plan("wavefront", at_the_pixel=corner, levels=len(self._lanes.inside))

    @functools.cached_property
    def _lanes(self) -> Lanes:
        return lanes_of(self.causal.sweep, np)

    def __call__(self, y: Array) -> Array:
        xp, lanes, (batch, channels) = namespace(y), self._lanes, y.shape[:2]
        rows, taps, blank = pixel_rows(y), self.causal.others, zeros((channels, 1, batch), y)
        if self.inverse is not None:
            rows, taps = matmul(self.inverse, rows), matmul(self.inverse, taps)
        rows = xp.permute_dims(xp.reshape(rows, (channels, batch, size(self.shape))), (0, 2, 1))
        # (C, places, B): the places of a level are contiguous
        gather, reads = (constant(i.reshape(-1), y) for i in (lanes.gather, lanes.reads))
        rows = xp.take(xp.concat([rows, blank], axis=1), gather, axis=1)
        weights = xp.reshape(xp.permute_dims(taps, (1, 2, 0)), (channels, -1))
        inside, count = constant(lanes.inside[:, :, None], y), lanes.inside.shape[1]
        outside = zeros((channels, count, batch), y)
        done: list[Array] = [outside] * lanes.back  # of each level, (C, M, B)
        for level in range(len(lanes.inside)):
            x = xp.reshape(rows[:, level * count : (level + 1) * count, :], (channels, -1))
            if taps.shape[0]:
                seen = xp.take(xp.concat([*done[level:], blank], axis=1), reads, axis=1)
                x = x - matmul(weights, xp.reshape(seen, (weights.shape[1], -1)))
            if self.inverse is None:
                x = triangular_solve(self.causal.diagonal, x, lower=self.causal.sweep.lower)
            x = xp.reshape(x, outside.shape)
            done.append(xp.where(inside[level, :, :], x, outside))
        x = xp.take(xp.concat(done[lanes.back :], axis=1), constant(lanes.places, y), axis=1)
        x = xp.reshape(xp.permute_dims(x, (0, 2, 1)), (channels, -1))
        return from_pixel_rows(x, y.shape)
