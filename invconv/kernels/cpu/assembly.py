"""The program of a solve: one array of integers with header, lists of taps, masks and segments."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from invconv.kernels.cpu.costs import BESIDE
from invconv.kernels.cpu.geometry import Geometry, TapList
from invconv.kernels.cpu.lanes import images, rows
from invconv.kernels.cpu.lanes.strips import Strips
from invconv.kernels.cpu.program import Header, names, numbers

Ints = np.ndarray[Any, np.dtype[np.int64]]
Way = Literal["images", "rows"]


@dataclass(frozen=True, eq=False)
class Program:
    """The integers that the compiled code reads to run a solve."""

    numbers: Ints  # the program; the compiled code reads it in place, so it is never edited
    header: Header  # its first numbers
    lanes: str  # {"images", "rows"}: the contents of the lanes of a vector

    def units(self, batch: int) -> int:
        """Return the number of units of work of a batch."""
        return -(-batch // self.header.images) * self.header.units


@functools.lru_cache(maxsize=64)
def program(g: Geometry, way: Way, shared: bool) -> Program:
    """Return the program of a solve, for any batch.

    ``way`` is the module of `invconv.kernels.cpu.lanes` that assigns the lanes. If ``shared``,
    several threads may solve the rows of one image.
    """
    places, masks = list[int](), np.zeros(0, np.int64)
    if way == "images":
        header, lists, body = images.header(g), images.lists(g), images.segments(g)
        places = images.places(g)
    else:
        header, lists, body = (
            rows.header(g, shared),
            rows.lists(g, shared),
            rows.segments(g, shared),
        )
        masks = _whole_integers(rows.masks(g)) if header.masked else masks
    first, taps = len(names(Header)), len(g.reach)
    after_lists = first + taps + len(lists) * (1 + 2 * taps)
    header = replace(
        header,
        segments=len(body[0]),
        channels=g.channels,
        pixels=g.pixels,
        taps=taps,
        lower=g.lower,
        block=g.block,
        blocks=g.blocks,
        order=first,
        lists=first + taps,
        places=after_lists,
        keep=after_lists + len(places),
        body=after_lists + len(places) + masks.size,
    )
    taps_read = itertools.chain(*(_filled(pixel_taps, g) for pixel_taps in lists))
    start = [*numbers(header), *g.order, *taps_read, *places]
    segments = [numbers(segment) for unit in body for segment in unit]
    integers = np.concatenate([np.asarray(start, np.int64), masks, np.ravel(segments)])
    integers.setflags(write=False)
    return Program(integers, header, way)


def _filled(taps: TapList, g: Geometry) -> list[int]:
    """Return a list of taps in the layout of `cpu.sums`, padded to the length of all taps."""
    size = g.block * g.channels  # weights of one tap in a block
    pairs = [n for tap, distance in taps for n in (tap * size, distance)]
    return [len(taps), *pairs, *[0] * (2 * len(g.reach) - len(pairs))]


def _whole_integers(masks: np.ndarray[Any, Any]) -> Ints:
    """Return bytes as 64-bit integers, padded with zeros."""
    padded = np.zeros(-(-masks.size // 8) * 8, np.int8)
    padded[: masks.size] = masks.ravel()
    return padded.view(np.int64)


def best_way(g: Geometry, batch: int, workers: int) -> Way:
    """Return the quickest way to solve a batch."""
    by_way = costs(g, batch, workers)
    return min(by_way, key=by_way.__getitem__)


def best_parts(g: Geometry, batch: int, workers: int) -> list[int]:
    """Return the sizes of a batch's parts: one that fills vectors and the rest, or the whole."""
    rest = batch % g.lanes
    parts = [n for n in (batch - rest, rest) if n]
    apart = sum(min(costs(g, n, workers).values()) for n in parts)
    together = min(costs(g, batch, workers).values()) if batch else 0
    return parts if apart < together else [batch]


@functools.lru_cache(maxsize=256)
def costs(g: Geometry, batch: int, workers: int) -> dict[Way, float]:
    """Return the cost of each way, in products of a channel's vector with a number."""
    groups, products = -(-batch // g.lanes), len(g.reach) * g.channels
    by_way: dict[Way, float] = {
        "images": -(-groups // workers) * g.pixels * (products + BESIDE["images"])
    }
    if rows.possible(g):
        strips = Strips(g, shared=False)
        levels = sum(map(strips.levels, range(strips.count)))
        if len(g.shape) > 2:
            levels *= -(-batch // workers) * math.prod(g.shape[:-2])
        else:  # threads share an image, too
            levels = -(-batch * levels // workers)
        by_way["rows"] = levels * (products + BESIDE["rows"])
    return by_way
