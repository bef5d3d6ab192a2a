"""Which tiles an autoregressive solve is cut into, and how they lie in memory: a small cost model.

A small product costs mostly the call. Tiles make fewer, larger products of more arithmetic: h x w
pixels are solved at once by their explicit inverse. That is as accurate as substitution only where
the tile's matrix is well conditioned, so the model ranks, and the solver takes the first that is.
Tiles of one image may run as a relay (`invconv.relay`), else they lie in the pitched layout.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, NamedTuple

from invconv import relay
from invconv.pitched import rows_read, slope_and_levels
from invconv.settings import sizes
from invconv.stencil import Offset
from invconv.tile_matrices import Tile

_LARGEST = 128  # numbers of a tile: more, and its inverse costs more than it saves
# seconds, fitted to times in NumPy on an AMD EPYC; `python -m invconv_benchmarks.planner` compares
_NUMBER_BYTE = 5.9e-12  # to multiply with another byte of the weights, in whole vectors
_ROW = 5e-10  # to multiply another row, a tile, however narrow
_WEIGHT_BYTE = 1.5e-12  # to read another byte of the weights for a product
_WEIGHT = 1.3e-8  # to make another number of the weights
_RUN = 4.7e-9  # to copy another run of pixels, a tile's row, in and out of a relay
_PIXEL = 1.5e-9  # to copy a run of one pixel
_SOLVED = 4.0e-10  # to copy another number on its way to T^-T and on from there
_OWN = 4.0e-10  # to copy another number in, instead of its product with D^-T
_FOUND = 1.0e-8  # to copy another tile to its place
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


Way = Literal["pitched", "solved first", "relay"]


class Choice(NamedTuple):
    """Tiles (h, w), and how they run: see `invconv.pitched` with `own` and without, and `relay`."""

    tile: Tile
    way: Way


SAFE = Choice((1, 1), "pitched")  # needs no inverse


@dataclass(frozen=True)
class Costs:
    """What a library's products cost.

    Attributes
    ----------
    call : float
        Seconds that a small product takes beyond its arithmetic; inf for 1 x 1 tiles only.
    adds : bool
        Whether products can be added to what is there.
    """

    call: float = math.inf
    adds: bool = False


@functools.lru_cache(maxsize=256)
def ranked(
    shape: tuple[int, int, int, int],
    reach: tuple[Offset, ...],
    costs: Costs,
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
    costs : Costs
    itemsize : int
        Bytes of a number.
    chosen : (h, w), optional
        By hand; the first one, if it can be used.
    """
    tiles = _possible(shape, reach)
    if chosen is not None:
        tiles = [t for t in tiles if t == chosen] or [(1, 1)]
    elif costs.call == math.inf:
        return (SAFE,)
    found = [Choice(t, "solved first" if _first(reach, t, costs) else "pitched") for t in tiles]
    found += [Choice(t, "relay") for t in tiles if relay.possible(shape, reach, itemsize, t)]
    found.sort(key=lambda choice: _seconds(shape, reach, choice, costs, itemsize))
    # where D^-1 keeps accuracy a pixel can be solved in any way, and where not, no tile
    stop = next((i for i, choice in enumerate(found, 1) if choice.tile == (1, 1)), len(found))
    return (*(choice for choice in found[:stop] if choice != SAFE), SAFE)


def _first(reach: tuple[Offset, ...], tile: Tile, costs: Costs) -> bool:
    """Tell whether T^-1 y should be put into the buffer instead of y."""
    alone = not any(a == 0 for a, _ in reach)  # only T reads a tile's own row
    return costs.adds and tile[0] == 1 and not alone


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
    costs: Costs,
    itemsize: int,
) -> float:
    batch, channels, height, width = shape
    high, wide = choice.tile
    tiles, numbers = batch * (height // high) * (width // wide), math.prod(shape)
    if choice.way == "relay":
        pixels, found, _ = relay.sizes(reach, choice.tile)
        rows = tiles
        calls = steps = height // high + width // wide - 1
        copies = tiles * high * channels * (_RUN if wide > 1 else _PIXEL)
        alone = 0
    else:
        read = rows_read(reach, 1, choice.tile)
        pixels, found = sum(end - first for _, first, end in read) * high, high * wide
        _, steps = slope_and_levels((height, width), reach, choice.tile)
        calls, rows = steps * len(read), tiles * len(read)
        if choice.way == "pitched":
            alone, copies = 0, numbers * _OWN + tiles * _FOUND
        else:
            alone, copies = wide, numbers * _SOLVED * (wide > 1)
    vectors = -(-found * channels * itemsize // _VECTOR)
    products = tiles * pixels * channels * vectors * _VECTOR * _NUMBER_BYTE
    weights = found * channels**2
    reading = steps * (pixels - alone) * weights * itemsize * _WEIGHT_BYTE
    making = pixels * weights * _WEIGHT / _SOLVES
    calling = calls * costs.call * (1 if costs.adds or choice.way == "relay" else 2)
    return products + rows * _ROW + reading + making + calling + copies
