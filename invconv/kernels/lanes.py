"""The lanes of a causal solve: its wavefronts in arrays of one size, for libraries with a loop.

Counted along the convolution's direction pixel a has the level sum_k w_k (a_k // d_k), with the
slope w, w_n = 1, and the dilation d. Pixels that differ by multiples of d_n in the last axis only
are a lane: a_1, ..., a_(n-1) and a_n mod d_n identify it. A lane has at most one pixel a level, and
for each level a tap reads other lanes at a level that is a fixed number earlier:

    x[level] = D^-1 (y[level] - [taps] window[reads])

with the last levels in a window. Plain wavefronts, torch's exported programs and JAX run this loop.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

from invconv.arrays.namespaces import Shape

Index: TypeAlias = Any  # integers or bools of NumPy or torch


class Lanes(NamedTuple):
    """The places of a grid's pixels: L levels, M lanes, N pixels."""

    gather: Index  # shape (L, M): the pixel of each place; N for a place without a pixel
    inside: Index  # bool, shape (L, M): whether the place has a pixel
    # shape (T, M): the place in the window that each tap reads; the window's end outside the grid
    reads: Index
    places: Index  # shape (N,): the place of each pixel
    back: int  # the number of levels of the window


def lanes_of(c: Any, shape: Shape, xp: Any, **device: Any) -> Lanes:
    """Return the lanes of a grid.

    ``c`` is a `CausalStencil`, `within` the grid, or settings with its ``reach``, ``direction``,
    ``dilation`` and ``slope``. ``xp`` is numpy or torch, to which ``device`` is passed on.
    """
    *others, last = range(len(shape))
    n, step = shape[last], c.dilation[last]
    sizes = (*(shape[k] for k in others), step)
    *along, residue = _unravel(xp.arange(math.prod(sizes), **device), sizes)
    start = sum(c.slope[k] * (along[k] // c.dilation[k]) for k in others) + 0 * residue
    levels = 1 + sum(w * ((s - 1) // d) for w, s, d in zip(c.slope, shape, c.dilation, strict=True))
    at = xp.arange(levels, **device)[:, None] - start  # place of a level in its lane
    inside = (at >= 0) & (at * step + residue < n)
    pixel = _ravel(c.direction, shape, [*along, at * step + residue])
    drops = [sum(w * o for w, o in zip(c.slope, offset, strict=True)) for offset in c.reach]
    back, count = max(drops, default=0), math.prod(sizes)
    reads = []
    for offset, drop in zip(c.reach, drops, strict=True):
        there = [along[k] - c.dilation[k] * offset[k] for k in others]
        known = residue >= 0
        for k in others:
            known = known & (there[k] >= 0) & (there[k] < shape[k])
        lane = _ravel((1,) * len(sizes), sizes, [*there, residue])
        reads.append(xp.where(known, (back - drop) * count + lane, back * count))
    *along, end = (
        p if s > 0 else size - 1 - p
        for p, s, size in zip(
            _unravel(xp.arange(math.prod(shape), **device), shape), c.direction, shape, strict=True
        )
    )
    level = sum(c.slope[k] * (along[k] // c.dilation[k]) for k in others) + end // step
    places = level * count + _ravel((1,) * len(sizes), sizes, [*along, end % step])
    gather = xp.where(inside, pixel, math.prod(shape))
    return Lanes(gather, inside, xp.stack(reads) if reads else gather[:0], places, back)


def _unravel(index: Index, shape: Shape) -> list[Index]:
    return [
        index // math.prod(shape[k + 1 :]) % n  # of the last axis the fastest
        for k, n in enumerate(shape)
    ]


def _ravel(direction: tuple[int, ...], shape: Shape, along: list[Index]) -> Index:
    """Return the flat indices of coordinates that are counted along a direction."""
    total = 0
    for p, s, n in zip(along, direction, shape, strict=True):
        total = total * n + (p if s > 0 else n - 1 - p)
    return total
