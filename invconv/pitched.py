"""The pitched layout: an autoregressive solve in place, a few matrix products a wavefront.

The images are cut into tiles of h x w pixels, 1 x 1 at the simplest. Tiles of one anti-diagonal do
not depend on each other. All images lie in one flat buffer, with zeros around each: the S = h w C
numbers of tile (i, j) of sample b, column by column, channels last, start at

    start + i row + b pitch + j S        with row = B pitch + slope S,

so that from the last sample at (i, j) to the first at (i + 1, j - slope), the next tile of the
anti-diagonal, it is one pitch, as from sample to sample. So a whole wavefront is *one* strided
matrix, and so is what a row of tiles reads for it: nothing is gathered. The buffer holds y, and x
overwrites it as the wave passes. With X_a what is read of the tiles a rows back, x itself still y,
and T the tile's own triangular matrix,

    x = [X_0 | y] M_0 + X_1 M_1 + ...        M_a = the -(T^-1 taps)^T stacked, and T^-T for y,

or, where T^-1 would cost accuracy, 1 x 1 tiles without it and a triangular solve at the end. Where
T^-1 y is in the buffer from the start, tiles are not read themselves:

    x = T^-1 y + X_0 M_0 + X_1 M_1 + ...

There is no array operation here but in `tile_matrix` and `weights`: a library that has strided
views, and matrix products into one, can run the plan (`invconv.planes.PitchedSolver`).
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

from invconv.arrays import Array, identity, namespace
from invconv.primitives import matmul
from invconv.stencil import Offset
from invconv.tile_matrices import Pixels, Tile, between

_PAGE = 4096  # bytes: pixels whole pages apart share one set of the cache
_LINE = 64  # bytes
_BAND = 2**18  # bytes that stay in the cache
_SHARED = 2**20  # bytes that do in those of some threads together
_ALL = slice(None)
_FEW = 4  # channels: a loop over no more takes longer to start than to run

Row = tuple[int, int, int]
Index = tuple[slice | int, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything lies in the buffer, counted in numbers, not bytes.

    `layout` returns the same object for the same question, so it is compared by identity.

    Attributes
    ----------
    length : int
        Of the buffer of a part.
    parts : tuple of slice
        Of the images: parts of the batch, of as many samples each but for the last, that have
        buffers of their own and do not wait for each other.
    start : int
        Of pixel (0, 0) of sample 0.
    shape, strides : tuple of int
        Of a part's images in its buffer, as (B, H / h, h, W / w, w, C); the first stride is the
        pitch.
    windows : tuple of (shift, width)
        What each of `rows_read` reads, from ``shift`` behind a tile on.
    steps : tuple of (place, count)
        In the order of the solve: where a wavefront's first tile starts, and how many (row,
        sample) pairs it has, one pitch apart.
    longest : int
        How many the longest wavefront has.
    size : int
        S, of a tile.
    own : bool
        Whether a tile's window holds the tile itself, still y; else T^-1 y is put into the buffer.
    entries : tuple of index
        Of the images, one after the other as they are copied in: row by row of the tiles, so that
        what is copied at once runs along the rows of the images; of few channels each by itself.
    exits : tuple of index
        Of the images as they are copied out: row by row of the tiles in bands of rows that stay in
        the cache, since they are read once for every channel.
    chunks : tuple of (slice of samples, slice of rows of tiles)
        Of a part's images, as T^-1 y is put in: bands of one sample or some whole ones.
    """

    length: int
    parts: tuple[slice, ...]
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    windows: tuple[tuple[int, int], ...]
    steps: tuple[tuple[int, int], ...]
    longest: int
    size: int
    own: bool
    entries: tuple[Index, ...]
    exits: tuple[Index, ...]
    chunks: tuple[tuple[slice, slice], ...]

    @functools.cached_property
    def weights_size(self) -> int:
        """How many numbers the largest matrix has."""
        return self.size * max(self.size, *(width for _, width in self.windows))


@functools.lru_cache(maxsize=256)
def rows_read(reach: tuple[Offset, ...], sign: int, tile: Tile) -> tuple[Row, ...]:
    """Return (a, first, end) for each row of tiles that is read, a rows of tiles back.

    Its columns of pixels, counted from the tile's own first in memory, are first, ..., end - 1.
    Row 0 comes first and holds the tile itself. There are no gaps, so a window may have columns
    without a tap; they are of earlier wavefronts too.
    """
    high, wide = tile
    rows: dict[int, list[int]] = {0: [0]}
    for a, q in reach:
        for back in {a // high, -(-a // high)}:
            rows.setdefault(back, []).append(q)
    return tuple(
        (a, -max(qs), wide - min(qs)) if sign > 0 else (a, min(qs), wide + max(qs))
        for a, qs in sorted(rows.items())
    )


def _others(row: Row, tile: Tile) -> Row:
    """Return what row 0 reads besides the tile itself: to the left of it, or to the right."""
    a, first, end = row
    return (a, first, 0) if first < 0 else (a, tile[1], end)


def slope_and_levels(
    shape: tuple[int, int], reach: tuple[Offset, ...], tile: Tile
) -> tuple[int, int]:
    """Return how far, in tiles, a row lags behind the one before, and how many wavefronts pass.

    Tile (i, j) is on level j + slope i, with a slope that puts all that it reads on earlier ones.
    """
    (height, width), (high, wide) = shape, tile
    slope = 1 + max([0, *(-(q // wide) for a, q in reach if a)])
    return slope, width // wide + slope * (height // high - 1)


@functools.lru_cache(maxsize=64)
def layout(
    shape: tuple[int, int, int, int],
    reach: tuple[Offset, ...],
    sign: int,
    itemsize: int,
    tile: Tile = (1, 1),
    own: bool = True,
    parts: int = 1,
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
    tile : (h, w)
        Divides (H, W); h is 1 where a tap reaches forwards along its row.
    own : bool
        See `Layout`.
    parts : int
        At most so many.
    """
    whole, channels, height, width = shape
    batch = -(-whole // parts)
    high, wide = tile
    rows, columns = height // high, width // wide
    column, size = high * channels, high * wide * channels
    read = rows_read(reach, sign, tile)
    slope, levels = slope_and_levels((height, width), reach, tile)
    depth, padding = read[-1][0], max([0, *(abs(q) for _, q in reach)])
    pitch = (padding + width) * column  # one gap serves the samples on both its sides
    if pitch * itemsize % _PAGE == 0:
        pitch += _LINE // itemsize
    row = batch * pitch + slope * size
    start = depth * row + padding * column
    windows = tuple(
        (-sign * a * row + first * column, (end - first) * column)
        for a, first, end in (read if own else (_others(read[0], tile), *read[1:]))
    )
    steps = []
    for level in range(levels):
        low, top = max(0, -((columns - 1 - level) // slope)), min(rows - 1, level // slope)
        place = start + low * row + (level - slope * low) * size
        steps.append((place, (top - low + 1) * batch))
    bands = _slices(rows, max(1, _BAND // (columns * size * itemsize)))
    return Layout(
        length=start + (rows + depth) * row + pitch,
        parts=_slices(whole, batch),
        start=start,
        shape=(batch, rows, high, columns, wide, channels),
        strides=(pitch, row, channels, size, column, 1),
        windows=windows,
        steps=tuple(step for step in steps[::sign] if step[1] > 0),
        longest=max(count for _, count in steps),
        size=size,
        own=own,
        entries=by_rows(high, channels),
        exits=tuple((_ALL, band, h) for band, h in itertools.product(bands, range(high))),
        chunks=_chunks(batch, rows, columns * size * itemsize, _BAND if parts == 1 else _SHARED),
    )


def by_rows(high: int, channels: int) -> tuple[Index, ...]:
    """Return indices of images (B, H / h, h, W / w, w, C), row by row of the tiles.

    What is copied at once runs along the rows of the images; of few channels each by itself.
    """
    some = channels_at_once(channels)
    return tuple((_ALL, _ALL, h, _ALL, _ALL, c) for h, c in itertools.product(range(high), some))


def channels_at_once(channels: int) -> tuple[slice | int, ...]:
    """Return indices of channels: each by itself if there are few, else all."""
    return tuple(range(channels)) if channels <= _FEW else (_ALL,)


def _chunks(batch: int, rows: int, row_bytes: int, most: int) -> tuple[tuple[slice, slice], ...]:
    samples = max(1, most // (rows * row_bytes))
    bands = [_ALL] if samples > 1 else _slices(rows, max(1, most // row_bytes))
    return tuple(itertools.product(_slices(batch, samples), bands))


def _slices(count: int, step: int) -> tuple[slice, ...]:
    return tuple(slice(i, min(i + step, count)) for i in range(0, count, step))


def _pixels(tile: Tile, columns: range, rows_back: int = 0) -> Pixels:
    """Return pixels of some columns, column by column, so many rows up from the tile's own."""
    return tuple((r - rows_back, c) for c in columns for r in range(tile[0]))


def tile_matrix(
    diagonal: Array, taps: Array, reach: tuple[Offset, ...], sign: int, tile: Tile
) -> Array:
    """Return T, the convolution's matrix within a tile, (w h C, w h C)."""
    inside = _pixels(tile, range(tile[1]))
    return namespace(taps).matrix_transpose(between(diagonal, taps, reach, sign, inside, inside))


def weights(
    diagonal: Array,
    taps: Array,
    reach: tuple[Offset, ...],
    sign: int,
    tile: Tile,
    inverse: Array | None,
    own: bool = True,
) -> list[Array]:
    """Return M_0, M_1, ..., one matrix (columns h C, w h C) for each of `rows_read`.

    Parameters
    ----------
    diagonal : array, shape (C, C)
        D.
    taps : array, shape (T, C, C)
    reach : tuple of T (row, column)
    sign : int
    tile : (h, w)
    inverse : array, shape (w h C, w h C), or None
        T^-1, or None where a triangular solve follows.
    own : bool
        See `Layout`.
    """
    xp, inside = namespace(taps), _pixels(tile, range(tile[1]))
    solved = identity(diagonal.shape[0], taps) if inverse is None else xp.matrix_transpose(inverse)
    first, *others = rows_read(reach, sign, tile)
    read = [
        _pixels(tile, range(first[1], 0)),
        _pixels(tile, range(tile[1], first[2])),
        *(_pixels(tile, range(*ends), sign * a * tile[0]) for a, *ends in others),
    ]
    matrix = -between(diagonal, taps, reach, sign, sum(read, ()), inside)
    if inverse is not None:
        matrix = matmul(matrix, solved)
    ends = [c * diagonal.shape[0] for c in itertools.accumulate(map(len, read), initial=0)]
    before, after, *above = (matrix[i:j, :] for i, j in itertools.pairwise(ends))
    here = [before, solved, after] if own else [before, after]
    here = [part for part in here if part.shape[0]] or [before]
    return [xp.concat(here, axis=0) if len(here) > 1 else here[0], *above]
