"""Matrices of what some pixels do to others in an autoregressive convolution."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from invconv.arrays import Array, constant, namespace, zeros
from invconv.stencil import Offset

Tile = tuple[int, int]
Pixels = tuple[tuple[int, int], ...]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@functools.lru_cache(maxsize=512)
def _taps(
    reach: tuple[Offset, ...], sign: int, sources: Pixels, targets: Pixels, apart: bool
) -> tuple[Ints, bool]:
    """Return the tap from each source to each target, 0 for D, T + 1 for none; if any has none."""
    known = {(0, 0): 0} | {(sign * a, sign * q): 1 + t for t, (a, q) in enumerate(reach)}
    none = len(reach) + 1
    found = [
        none
        if apart and (r, c) in targets and (r, c) != (i, j)
        else known.get((i - r, j - c), none)
        for r, c in sources
        for i, j in targets
    ]
    return np.asarray(found, dtype=np.int64), none in found


def between(
    diagonal: Array,
    taps: Array,
    reach: tuple[Offset, ...],
    sign: int,
    sources: Pixels,
    targets: Pixels,
    *,
    apart: bool = False,
) -> Array:
    """Return the transposed matrix (sources C, targets C), as rows of pixels want it.

    Parameters
    ----------
    diagonal : array, shape (C, C)
        D.
    taps : array, shape (T, C, C)
    reach : tuple of T (row, column)
        How far back each tap reads.
    sign : int
        +1 where back is upwards and to the left, -1 where it is downwards and to the right.
    sources, targets : tuple of (row, column)
        Counted from anywhere.
    apart : bool
        Whether targets do nothing to each other.
    """
    xp, channels = namespace(taps), diagonal.shape[0]
    found, some_none = _taps(reach, sign, sources, targets, apart)
    known = [diagonal[None, ...], taps]
    if some_none:
        known.append(zeros((1, channels, channels), taps))
    chosen = xp.take(xp.concat(known, axis=0), constant(found, taps), axis=0)
    blocks = xp.reshape(chosen, (len(sources), len(targets), channels, channels))
    # a source's channels are the columns of its taps
    return xp.reshape(
        xp.permute_dims(blocks, (0, 3, 1, 2)), (len(sources) * channels, len(targets) * channels)
    )
