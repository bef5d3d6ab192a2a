"""The relay layout: an autoregressive solve of one image, a single matrix product a wavefront.

A small product costs mostly the call, so there should be few. A tile of h x w pixels reads p rows
of the tile above it and q columns of the tile to its left, and the corner between them, which the
tile to its left has read too and passes on. On wavefront d, with y what is given and x what is
found, tile i from the top has a record in memory, and its result goes to the next wavefront's:

    reads   [ above | y | left ]       p x w, h x w and (p + h) x q pixels
    finds   [ strip | x ]              (p + h) x q and h x w pixels, = reads M

The strip, what was passed on above the last q columns of x, is ``left`` for the tile to the right
on wavefront d + 1. The last p rows of x are ``above`` for the tile below it, i + 1 on the same
wavefront, if records are so far apart that the end of one tile's result is the start of the next
tile's record. So nothing is copied or added between products: with the records of a wavefront as
the rows of one strided matrix, and its results as those of another, the wave passes by

    finds_d = reads_d M        d = 0, 1, ..., H / h + W / w - 2.

Where x is sought upwards and to the left, all this is mirrored in memory, pixel by pixel.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from invconv.arrays import Array, constant, namespace
from invconv.pitched import Index, by_rows
from invconv.primitives import matmul
from invconv.stencil import Offset
from invconv.tile_matrices import Pixels, Tile, between

Floats = np.ndarray[Any, Any]

_LARGEST = 2**23  # bytes of a buffer; it is a few times as large as the image
_FEW = 1024  # pixels: copying them at once costs less than the calls for each row of a tile


@dataclass(frozen=True, eq=False)
class Relay:
    """Where everything lies in the buffer, counted in numbers, not bytes.

    `relay` returns the same object for the same question, so it is compared by identity.

    Attributes
    ----------
    length : int
        Of the buffer.
    shape, strides : tuple of int
        Of y and of x in the buffer, as (1, H / h, h, W / w, w, C).
    entry, exit : int
        Where the first pixel of y and of x is.
    record : int
        From one record to the next.
    reads, finds : int
        How many numbers a tile reads and finds.
    steps : tuple of (reads, finds, count)
        In the order of the solve: where a wavefront's first record and first result are, and how
        many there are.
    copies : tuple of index
        Of the images, as they are copied in and out; a small one at once.
    """

    length: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    entry: int
    exit: int
    record: int
    reads: int
    finds: int
    steps: tuple[tuple[int, int, int], ...]
    copies: tuple[Index, ...]


def depths(reach: tuple[Offset, ...]) -> tuple[int, int]:
    """Return p and q, how many rows up and columns to the left the taps reach."""
    return max([0, *(a for a, _ in reach)]), max([0, *(q for _, q in reach)])


def sizes(reach: tuple[Offset, ...], tile: Tile) -> tuple[int, int, int]:
    """Return how many pixels a tile reads and finds, and from one record to the next."""
    (p, q), (high, wide) = depths(reach), tile
    strip = (p + high) * q
    return (p + high) * wide + strip, strip + high * wide, 2 * high * wide + strip


def possible(
    shape: tuple[int, int, int, int], reach: tuple[Offset, ...], itemsize: int, tile: Tile
) -> bool:
    """Tell whether tiles of (h, w) pixels, which divide (H, W), can run so.

    There must be one image, no tap that reaches forwards along its row, and none that reaches
    beyond the next tile; and a buffer that stays in the cache.
    """
    batch, channels, height, width = shape
    (p, q), (high, wide) = depths(reach), tile
    if batch > 1 or p > high or q > wide or any(column < 0 for _, column in reach):
        return False
    tiles = (height // high, width // wide)
    return _length(tiles, sizes(reach, tile)[2]) * channels * itemsize <= _LARGEST


def _length(tiles: tuple[int, int], record: int) -> int:
    """Return the pixels of a buffer: the records of all wavefronts, and one more for their results.

    A wavefront has as many records as the shorter side has tiles, and one where its results end.
    """
    return (sum(tiles) * (min(tiles) + 1) + max(tiles) + 1) * record


@functools.lru_cache(maxsize=64)
def relay(
    shape: tuple[int, int, int, int],
    reach: tuple[Offset, ...],
    sign: int,
    itemsize: int,
    tile: Tile,
) -> Relay:
    """Return the layout of a solve; the parameters are those of `invconv.pitched.layout`."""
    _, channels, height, width = shape
    p, (high, wide) = depths(reach)[0], tile
    rows, columns = height // high, width // wide
    reads, finds, record = sizes(reach, tile)
    level = (min(rows, columns) + 1) * record
    length = _length((rows, columns), record)
    result = level + (p + high) * wide  # from a record to the strip that its tile finds
    inside = (level + record, wide, level, 1)  # strides of tile rows, rows, tiles and pixels

    def mirrored(place: int, size: int) -> int:
        return place if sign > 0 else length - place - size

    extent = 1 + sum((n - 1) * s for n, s in zip((rows, high, columns, wide), inside, strict=True))
    steps = []
    for d in range(rows + columns - 1):
        low, top = max(0, d - columns + 1), min(rows - 1, d)
        here = d * level + (low if sign > 0 else top) * record
        places = mirrored(here, reads), mirrored(here + result, finds)
        steps.append((places[0] * channels, places[1] * channels, top - low + 1))
    return Relay(
        length=length * channels,
        shape=(1, rows, high, columns, wide, channels),
        strides=(length * channels, *(s * channels for s in inside), 1),
        entry=mirrored(p * wide, extent) * channels,
        exit=mirrored(result + finds - high * wide, extent) * channels,
        record=record * channels,
        reads=reads * channels,
        finds=finds * channels,
        steps=tuple(steps),
        copies=((),) if height * width <= _FEW else by_rows(high, channels),
    )


def _block(rows: range, columns: range) -> Pixels:
    return tuple((r, c) for r in rows for c in columns)


@functools.lru_cache(maxsize=256)
def _pixels(reach: tuple[Offset, ...], sign: int, tile: Tile) -> tuple[Pixels, Pixels, Pixels]:
    """Return what a tile reads and finds, in the order of memory, and the tile row by row.

    Pixels are (row, column), counted from the tile's first one.
    """
    (p, q), (high, wide) = depths(reach), tile
    inside = _block(range(high), range(wide))
    reads = (
        *_block(range(-p, 0), range(wide)),
        *inside,
        *_block(range(-p, high), range(-q, 0)),
    )
    finds = (*_block(range(-p, high), range(wide - q, wide)), *inside)
    if sign > 0:
        return reads, finds, inside

    def mirrored(pixels: Pixels) -> Pixels:
        return tuple((high - 1 - r, wide - 1 - c) for r, c in reversed(pixels))

    return mirrored(reads), mirrored(finds), inside


class Constants(NamedTuple):
    """What all M of a relay have in common.

    Attributes
    ----------
    columns : tuple of slice
        Which columns of the tile are found one after the other.
    copies : array, shape (reads C, strip C)
        M for the others, which are found as they were read.
    minus_one : array, shape (C, C)
    """

    columns: tuple[slice, ...]
    copies: Floats
    minus_one: Floats


@functools.lru_cache(maxsize=32)
def _constants(
    reach: tuple[Offset, ...], sign: int, tile: Tile, channels: int, itemsize: int
) -> Constants:
    reads, finds, inside = _pixels(reach, sign, tile)
    own = [inside.index(p) for p in finds if p in inside]
    starts = [i for i, n in enumerate(own) if i == 0 or n != own[i - 1] + 1]
    runs = [own[i:j] for i, j in itertools.pairwise([*starts, len(own)])]
    columns = tuple(slice(run[0] * channels, (run[-1] + 1) * channels) for run in runs)
    one = np.eye(channels, dtype=f"f{itemsize}")
    copied = np.asarray([[p == q for q in finds if q not in inside] for p in reads], one.dtype)
    return Constants(columns, np.kron(copied, one), -one)


def tile_matrix(
    diagonal: Array, taps: Array, reach: tuple[Offset, ...], sign: int, tile: Tile
) -> Array:
    """Return T, the convolution's matrix within a tile, for its pixels row by row."""
    inside = _pixels(reach, sign, tile)[2]
    return namespace(taps).matrix_transpose(between(diagonal, taps, reach, sign, inside, inside))


def weights(
    taps: Array,
    reach: tuple[Offset, ...],
    sign: int,
    tile: Tile,
    inverse: Array,
) -> Array:
    """Return M, shape (reads C, finds C).

    Parameters
    ----------
    taps : array, shape (T, C, C)
    reach : tuple of T (row, column)
    sign : int
    tile : (h, w)
    inverse : array, shape (h w C, h w C)
        T^-1, for the pixels of a tile row by row.
    """
    xp, (reads, _, inside) = namespace(taps), _pixels(reach, sign, tile)
    columns, copies, minus_one = _constants(reach, sign, tile, taps.shape[1], taps.dtype.itemsize)
    # x = T^-1 (y - taps x_read), transposed
    known = between(constant(minus_one, taps), taps, reach, sign, reads, inside, apart=True)
    found = matmul(known, -xp.matrix_transpose(inverse))
    own, kept = [found[:, some] for some in columns], constant(copies, taps)
    # what is only copied comes before the tile, or after it
    return xp.concat([kept, *own] if sign > 0 else [*own, kept], axis=1)
