"""The program of a solve: header, lists of taps, masks, segments in one array of integers."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from invconv.kernels.cpu import images, rows
from invconv.kernels.cpu.plan import Geometry, TapList
from invconv.kernels.cpu.program import Header, names, numbers

Ints = np.ndarray[Any, np.dtype[np.int64]]
Lanes = Literal["images", "rows"]


@dataclass(frozen=True, eq=False)
class Program:
    """The numbers that a solve goes by.

    Attributes
    ----------
    numbers : array of int64
        Read by the compiled code, so it is never edited.
    header : Header
        Its first numbers.
    """

    numbers: Ints
    header: Header

    def units(self, batch: int) -> int:
        """Return into how many units of work a batch falls."""
        return -(-batch // self.header.images) * self.header.units


@functools.lru_cache(maxsize=64)
def program(g: Geometry, lanes: Lanes, shared: bool) -> Program:
    """Return the program of a solve, for any batch.

    Parameters
    ----------
    g : Geometry
    lanes : {"images", "rows"}
        What is in the lanes of a vector.
    shared : bool
        Whether several threads may solve one image.
    """
    if lanes == "images":
        header, lists, body = images.header(g), images.lists(g), images.segments(g)
        places = images.places(g)
    else:
        header, lists, places = rows.header(g, shared), rows.lists(g, shared), list[int]()
        body = rows.segments(g, shared)
    masks = _whole_integers(rows.masks(g)) if header.masked else np.zeros(0, np.int64)
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
    taps_read = itertools.chain(*(_filled(found, g) for found in lists))
    start = [*numbers(header), *g.order, *taps_read, *places]
    segments = [numbers(segment) for unit in body for segment in unit]
    found = np.concatenate([np.asarray(start, np.int64), masks, np.ravel(segments)])
    found.setflags(write=False)
    return Program(found, header)


def _filled(taps: TapList, g: Geometry) -> list[int]:
    """Return a list of taps as `invconv.kernels.cpu.sums` reads it, as long as that of all taps."""
    size = g.block * g.channels  # weights of a tap and a block
    pairs = [n for tap, distance in taps for n in (tap * size, distance)]
    return [len(taps), *pairs, *[0] * (2 * len(g.reach) - len(pairs))]


def _whole_integers(masks: np.ndarray[Any, Any]) -> Ints:
    """Return bytes as 64-bit integers, with zeros at the end."""
    padded = np.zeros(-(-masks.size // 8) * 8, np.int8)
    padded[: masks.size] = masks.ravel()
    return padded.view(np.int64)


@functools.lru_cache(maxsize=256)
def best_lanes(g: Geometry, batch: int, workers: int) -> Lanes:
    """Return what should be in the lanes for a batch: whatever leaves fewer of them idle."""
    groups = -(-batch // g.lanes)
    by_images = -(-groups // workers) * g.pixels
    if not rows.possible(g):
        return "images"
    strips = rows.Strips(g, shared=False)
    levels = sum(map(strips.levels, range(strips.count)))
    planes = math.prod(g.shape[:-2])
    if len(g.shape) > 2:
        by_rows = -(-batch // workers) * planes * levels
    else:
        by_rows = -(-batch * levels // workers)
    return "images" if by_images <= 1.05 * by_rows else "rows"
