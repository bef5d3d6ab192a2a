"""Which tiles an autoregressive solve is cut into, and how they lie in memory: a small cost model.

A small product costs mostly the call. Tiles make fewer, larger products of more arithmetic: h x w
pixels are solved at once by their explicit inverse. That is as accurate as substitution only where
the tile's matrix is well conditioned, so the model ranks, and the solver takes the first that is.
Tiles of one image may run as a relay (`invconv.relay`), else they lie in the pitched layout.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from invconv import relay
from invconv.pitched import rows_read, slope_and_levels
from invconv.settings import sizes
from invconv.stencil import Offset
from invconv.tile_matrices import Tile

_LARGEST = 128  # numbers of a tile: more, and its inverse costs more than it saves
_BYTES = 1.8e11  # a second, of numbers in and out of multiplications: 90 GFLOP/s in float32
_WEIGHT_SECONDS = 1.3e-8  # to make another number of the weights
_IN_PLACE = 0.65  # of a call, where nothing is added or copied after it
_RUN_SECONDS = 5e-9  # to copy another run of pixels in and out: a tile's row
_PIXEL_SECONDS = 1.5e-9  # to copy another pixel in and out where a tile's row is no longer
_SOLVES = 8  # that share what a plan costs: a training step needs one, sampling many
_VECTOR = 64  # bytes: narrower products leave a processor's vectors part empty

_chosen: ContextVar[Tile | None] = ContextVar("invconv_tile", default=None)


@contextmanager
def tile_by_hand(tile: Tile) -> Iterator[None]:
    """Choose tiles (h, w), instead of the planner, of what is factored inside this context.

    Raises
    ------
    TypeError, ValueError
        If these are not two integers of at least 1.
    """
    high, wide = sizes("tile", tile, 2)
    token = _chosen.set((high, wide))
    try:
        yield
    finally:
        _chosen.reset(token)


def by_hand() -> Tile | None:
    """Return the tiles that were chosen by hand, if any."""
    return _chosen.get()


class Choice(NamedTuple):
    """Tiles (h, w), and whether they run as a relay."""

    tile: Tile
    relay: bool


_SAFE = Choice((1, 1), relay=False)  # needs no inverse


@functools.lru_cache(maxsize=256)
def ranked(
    shape: tuple[int, int, int, int],
    reach: tuple[Offset, ...],
    call_seconds: float,
    itemsize: int,
    chosen: Tile | None = None,
) -> tuple[Choice, ...]:
    """Return choices, the fastest first; the last one can always be used.

    Parameters
    ----------
    shape : tuple of int
        Of the images, (B, C, H, W).
    reach : tuple of (row, column)
        How far back each tap reads.
    call_seconds : float
        What a small product costs beyond its arithmetic.
    itemsize : int
        Bytes of a number.
    chosen : (h, w), optional
        By hand; the first one, if it can be used.
    """
    tiles = _possible(shape, reach)
    if chosen is not None:
        tiles = [t for t in tiles if t == chosen] or [(1, 1)]
    elif call_seconds == float("inf"):
        return (_SAFE,)
    found = [Choice(tile, relay=False) for tile in tiles]
    found += [Choice(t, relay=True) for t in tiles if relay.possible(shape, reach, itemsize, t)]
    found.sort(key=lambda choice: _seconds(shape, reach, choice, call_seconds, itemsize))
    stop = found.index(_SAFE) if _SAFE in found else len(found)
    return (*found[:stop], _SAFE)


def _possible(shape: tuple[int, int, int, int], reach: tuple[Offset, ...]) -> list[Tile]:
    """Return the tiles that divide the grid; one row high where a tap reaches forwards."""
    _, channels, height, width = shape
    skew = any(q < 0 for _, q in reach)
    return [
        (h, w)
        for h in ([1] if skew else _divisors(height))
        for w in _divisors(width)
        if h * w == 1 or h * w * channels <= _LARGEST
    ]


def _divisors(n: int) -> list[int]:
    return [d for d in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32) if n % d == 0]


def _seconds(
    shape: tuple[int, int, int, int],
    reach: tuple[Offset, ...],
    choice: Choice,
    call_seconds: float,
    itemsize: int,
) -> float:
    batch, channels, height, width = shape
    (high, wide), alone = choice
    count = batch * (height // high) * (width // wide)
    if alone:
        pixels, found, _ = relay.sizes(reach, choice.tile)
        steps, calls = height // high + width // wide - 1, _IN_PLACE
        copies = count * high * channels * (_RUN_SECONDS if wide > 1 else _PIXEL_SECONDS)
    else:
        read = rows_read(reach, 1, choice.tile)
        pixels, found = sum(end - first for _, first, end in read) * high, high * wide
        _, steps = slope_and_levels((height, width), reach, choice.tile)
        calls, copies = 2.0 * len(read), 0.0
    vectors = -(-found * channels * itemsize // _VECTOR)
    if alone and found * channels * itemsize < _VECTOR:
        vectors = 2  # MKL takes twice as long for narrow products; the pitched layout pads them
    row_bytes = vectors * _VECTOR
    plan = pixels * found * channels**2 * _WEIGHT_SECONDS
    products = (count + alone * steps) * pixels * channels * row_bytes / _BYTES
    return plan / _SOLVES + steps * calls * call_seconds + products + copies
