"""Autoregressive convolutions of large grids in extended precision, from their definition.

    y[p] = sum over t of K[..., t] x[p - direction dilation o(t)],    zero outside the grid,

solved for x pixel after pixel. It shares no code with the core, and needs no dense matrix as
`oracle` does: it reads an operator's public fields, of NumPy float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.truth.extended import EXTENDED
from invconv_conformance.truth.oracle import Matrix, Shape


def convolve(conv: ic.AutoregressiveConv, x: Matrix) -> Matrix:
    """Return K x, shape (C, *spatial), without bias."""
    shape = x.shape[1:]
    y = np.zeros(x.shape, EXTENDED)
    for step, tap in taps(conv):
        if all(abs(s) < n for s, n in zip(step, shape, strict=True)):
            there = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(step, shape, strict=True))
            here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, shape, strict=True))
            y[_everywhere(there)] += np.tensordot(tap, x[_everywhere(here)], 1)
    return y


def substitute(conv: ic.AutoregressiveConv, y: Matrix) -> Matrix:
    """Return K^-1 y, shape (C, *spatial), without bias."""
    shape = y.shape[1:]
    (_, diagonal), *others = taps(conv)
    assert isinstance(conv.direction, tuple)
    ways = [range(n)[::s] for n, s in zip(shape, conv.direction, strict=True)]
    x: Matrix = np.zeros(y.shape, EXTENDED)
    for p in itertools.product(*ways):
        rest: Matrix = y[_everywhere(p)].astype(EXTENDED)
        for step, tap in others:
            source = tuple(i - s for i, s in zip(p, step, strict=True))
            if all(0 <= i < n for i, n in zip(source, shape, strict=True)):
                rest = rest - tap @ x[_everywhere(source)]
        x[_everywhere(p)] = _solve(diagonal, rest, conv.channel_order)
    return x


def _everywhere(place: tuple[Any, ...]) -> Any:
    """Return the index of all channels at a place of the grid."""
    return (slice(None), *place)


def taps(conv: ic.AutoregressiveConv) -> Iterator[tuple[Shape, Matrix]]:
    """Yield direction dilation o(t) and K[..., t] of every tap that is not masked, o = 0 first."""
    assert isinstance(conv.direction, tuple)
    assert isinstance(conv.dilation, tuple)
    size = conv.kernel.shape[2:]
    centre = [0] * len(size)
    if conv.mask == "raster":
        centre = [0, *((k - 1) // 2 for k in size[1:])]
    found = []
    for t in itertools.product(*map(range, size)):
        o = tuple(i - c for i, c in zip(t, centre, strict=True))
        if o >= (0,) * len(o):
            tap = conv.kernel[(slice(None), slice(None), *t)].astype(EXTENDED)
            if not any(o):
                tap = np.tril(tap) if conv.channel_order == "lower" else np.triu(tap)
            ways = zip(o, conv.direction, conv.dilation, strict=True)
            found.append((o, tuple(i * s * d for i, s, d in ways), tap))
    found.sort(key=lambda entry: entry[0])
    return iter([(step, tap) for _, step, tap in found])


def _solve(triangle: Matrix, rhs: Matrix, order: str) -> Matrix:
    x = np.zeros(len(rhs), EXTENDED)
    rows = range(len(rhs))
    for c in rows if order == "lower" else reversed(rows):
        x[c] = (rhs[c] - triangle[c] @ x) / triangle[c, c]
    return x
