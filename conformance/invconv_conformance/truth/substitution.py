"""Autoregressive convolutions of large grids in extended precision, from their definition.

    y[p] = sum over t of K[..., t] x[p - direction dilation o(t)],    zero outside the grid,

solved for x pixel after pixel. It shares no code with the core, and needs no dense matrix as
`oracle` does: it reads an operator's public fields, of NumPy float64.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.truth.extended import EXTENDED
from invconv_conformance.truth.oracle import Matrix, autoregressive_taps


def convolve(conv: ic.AutoregressiveConv, x: Any) -> Matrix:
    """Return K x, shape (C, *spatial), without bias."""
    shape = x.shape[1:]
    y: Any = np.zeros(x.shape, EXTENDED)
    for step, tap in autoregressive_taps(conv):
        if all(abs(s) < n for s, n in zip(step, shape, strict=True)):
            there = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(step, shape, strict=True))
            here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, shape, strict=True))
            y[(slice(None), *there)] += np.tensordot(tap, x[(slice(None), *here)], 1)
    return np.asarray(y)


def substitute(conv: ic.AutoregressiveConv, y: Any) -> Matrix:
    """Return K^-1 y, shape (C, *spatial), without bias."""
    shape = y.shape[1:]
    (_, diagonal), *others = autoregressive_taps(conv)
    assert isinstance(conv.direction, tuple)
    ways = [range(n)[::s] for n, s in zip(shape, conv.direction, strict=True)]
    x: Any = np.zeros(y.shape, EXTENDED)
    for p in itertools.product(*ways):
        rest: Any = y[(slice(None), *p)].astype(EXTENDED)
        for step, tap in others:
            source = tuple(i - s for i, s in zip(p, step, strict=True))
            if all(0 <= i < n for i, n in zip(source, shape, strict=True)):
                rest = rest - tap @ x[(slice(None), *source)]
        rows = range(len(rest))
        pixel = np.zeros(len(rest), EXTENDED)
        for c in rows if conv.channel_order == "lower" else reversed(rows):
            pixel[c] = (rest[c] - diagonal[c] @ pixel) / diagonal[c, c]
        x[(slice(None), *p)] = pixel
    return np.asarray(x)
