"""The pitched layout: an autoregressive solve in place, a few matrix products a wavefront.

Pixels of one anti-diagonal do not depend on each other. All images lie in one flat buffer, channels
last, with zeros around each: pixel (i, j) of sample b starts at

    start + i row + b pitch + j C        with row = B pitch + slope C,

so that from the last sample at (i, j) to the first at (i + 1, j - slope), the next pixel of the
anti-diagonal, it is one pitch, as from sample to sample. So a whole wavefront is *one* strided
matrix, and so is what a kernel row reads for it: nothing is gathered. The buffer holds y, and x
overwrites it as the wave passes. With X_a what kernel row a reads, and x itself still y,

    x = [X_0 | y] M_0 + X_1 M_1 + ...        M_a = the -(D^-1 tap)^T stacked, and D^-T for y,

or, where D^-1 would cost accuracy, the same without D^-1 and a triangular solve at the end.

There is no array operation here but in `weights`: a library that has strided views, and matrix
products into one, can run the plan (`invconv.planes.PitchedSolver`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from invconv.arrays import Array, identity, namespace, zeros
from invconv.primitives import matmul
from invconv.stencil import Offset

_PAGE = 4096  # bytes: pixels whole pages apart share one set of the cache

Row = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything lies in the buffer, counted in numbers, not bytes.

    `layout` returns the same object for the same question, so it is compared by identity.

    Attributes
    ----------
    length : int
        Of the buffer.
    start : int
        Of pixel (0, 0) of sample 0.
    strides : tuple of int
        Of the images as (B, H, W, C); the first is the pitch.
    windows : tuple of (shift, width)
        What each of `rows_read` reads, from ``shift`` behind a pixel on.
    steps : tuple of (place, count)
        In the order of the solve: where a wavefront's first pixel starts, and how many (row,
        sample) pairs it has, one pitch apart.
    """

    length: int
    start: int
    strides: tuple[int, int, int, int]
    windows: tuple[tuple[int, int], ...]
    steps: tuple[tuple[int, int], ...]


def rows_read(reach: tuple[Offset, ...], sign: int) -> tuple[Row, ...]:
    """Return, for each kernel row a, the columns back that are read, as they lie in memory.

    Row 0 comes first and holds the pixel itself. There are no gaps, so a window may have columns
    without a tap; they are of earlier wavefronts too.
    """
    rows: dict[int, list[int]] = {0: [0]}
    for a, q in reach:
        rows.setdefault(a, []).append(q)
    farthest_first = {a: range(max(qs), min(qs) - 1, -1) for a, qs in sorted(rows.items())}
    return tuple((a, tuple(columns[::sign])) for a, columns in farthest_first.items())


@functools.lru_cache(maxsize=64)
def layout(
    shape: tuple[int, int, int, int], reach: tuple[Offset, ...], sign: int, itemsize: int
) -> Layout:
    """Return the layout of a solve.

    Parameters
    ----------
    shape : tuple of int
        Of the images, (B, C, H, W).
    reach : tuple of (row, column)
        How far back each tap reads; the first non-zero entry is positive.
    sign : int
        +1 where back is upwards and to the left, -1 where it is downwards and to the right.
    itemsize : int
        Bytes of a number.
    """
    batch, channels, height, width = shape
    read = rows_read(reach, sign)
    ahead = max([0, *(-q for a, q in reach if a)])
    slope = 1 + ahead  # then slope a + q > 0 for every tap, as `invconv.wavefront` wants it
    depth, padding = read[-1][0], max(abs(q) for _, columns in read for q in columns)
    pitch = (padding + width) * channels  # what is left of a sample is also right of the one before
    while pitch * itemsize % _PAGE == 0:
        pitch += channels
    row = batch * pitch + slope * channels
    start = depth * row + padding * channels
    windows = tuple(
        (-sign * (a * row + columns[0] * channels), len(columns) * channels) for a, columns in read
    )
    steps = []
    for level in range(width + slope * (height - 1)):
        low, high = max(0, -((width - 1 - level) // slope)), min(height - 1, level // slope)
        place = start + low * row + (level - slope * low) * channels
        steps.append((place, (high - low + 1) * batch))
    return Layout(
        length=start + (height + depth) * row + pitch,
        start=start,
        strides=(pitch, row, channels, 1),
        windows=windows,
        steps=tuple(step for step in steps[::sign] if step[1] > 0),
    )


def weights(
    diagonal: Array, taps: Array, reach: tuple[Offset, ...], sign: int, inverse: Array | None
) -> list[Array]:
    """Return M_0, M_1, ..., one matrix (columns C, C) for each of `rows_read`.

    Parameters
    ----------
    diagonal : array, shape (C, C)
        D.
    taps : array, shape (T, C, C)
    reach : tuple of T (row, column)
    sign : int
    inverse : array, shape (C, C), or None
        D^-1, or None where a triangular solve follows.
    """
    xp = namespace(taps)
    channels = diagonal.shape[0]
    blank, own = zeros((channels, channels), taps), identity(channels, taps)
    if inverse is not None:
        taps, own = matmul(inverse, taps), xp.matrix_transpose(inverse)
    transposed = -xp.matrix_transpose(taps)
    blocks = {(0, 0): own} | {place: transposed[t, ...] for t, place in enumerate(reach)}
    return [
        xp.concat([blocks.get((a, q), blank) for q in columns], axis=0)
        for a, columns in rows_read(reach, sign)
    ]
