"""The program of a solve, for the quickest way: all ways give the same bits."""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from invconv.kernels.cpu import costs
from invconv.kernels.cpu.geometry import Geometry
from invconv.kernels.cpu.lanes import images, rows
from invconv.kernels.cpu.program import (
    Assembled,
    Header,
    Parts,
    Segment,
    numbers_of,
    tap_list,
)
from invconv.kernels.order import accumulators, inverse_limit

# the modules of `cpu.lanes`, and a recursion without lanes
Way = Literal["images", "rows", "channels", "recursion"]


@dataclass(frozen=True, eq=False)
class Program(Assembled[Header]):
    """The program of a solve."""

    way: Way  # the assignment of the lanes
    sums: tuple[int, ...]  # settings of the sums' code (`machine.sums`)

    @functools.cached_property
    def flag(self) -> int:
        """The place of the last number of the weights (`invconv.kernels.cpu.weights`)."""
        h = self.header
        return h.blocks * h.block * h.taps * h.channels + h.channels**2

    @functools.cached_property
    def weights(self) -> int:
        """The number of weights; a vector of D's last column may end behind the flag."""
        return self.flag + 1 + self.header.blocks * self.header.block

    def units(self, batch: int) -> int:
        return -(-batch // self.header.images) * self.header.units


@functools.lru_cache(maxsize=64)
def program(g: Geometry, way: Way, shared: bool = False, together: int = 1) -> Program:
    """Return the program of a solve, for any batch.

    If ``shared``, several threads may solve the rows of one image. With channels in the lanes,
    ``together`` images are solved at a time.
    """
    if way == "rows":
        parts = rows.parts(g, shared)
    elif way == "channels":
        parts = images.parts_by_channels(g, together)
    else:
        parts = images.parts(g) if way == "images" else _recursion(g)
    taps, masks = len(g.reach), parts.masks + bytes(-len(parts.masks) % 8)
    numbers = {
        "segments": len(parts.segments[0]),
        "channels": g.channels,
        "pixels": g.pixels,
        "taps": taps,
        "lower": int(g.lower),
        "limit": inverse_limit(g.channels),
        "block": g.block,
        "blocks": g.blocks,
    }
    header = Header(**numbers | parts.header)
    weights = header.block * g.channels
    sections = {
        "order": g.order,
        "lists": [n for read in parts.lists for n in tap_list(read, taps, weights)],
        "places": parts.places,
        "keep": np.frombuffer(masks, np.int64),
        "body": numbers_of(itertools.chain(*parts.segments)),
    }
    return Program.of(header, sections, way, parts.sums)


def _recursion(g: Geometry) -> Parts:
    """Return the parts for signals of one channel: a segment each, distances in samples."""
    back = [o[0] for o in g.reach]
    # the last ``near`` solved numbers, all of which taps read, stay in registers
    near = next(n for n in range(costs.REGISTERS + 1) if n == costs.REGISTERS or n + 1 not in back)
    start = 0 if g.direction[0] > 0 else g.pixels - 1
    return Parts(
        {"images": 1, "units": 1, "row_step": g.direction[0], "last_row": max(back)},
        [list(enumerate(back))],
        [[Segment(at=start, rows=g.pixels, columns=1)]],
        (near,),
    )


def best_program(g: Geometry, batch: int, workers: int) -> Program:
    """Return the program of the quickest way to solve a batch."""
    way = best_way(g, batch, workers)
    if way == "channels":
        return program(g, way, together=together(batch, workers))
    return program(g, way, way == "rows" and workers > 1)


def best_way(g: Geometry, batch: int, workers: int) -> Way:
    """Return the quickest way to solve a batch."""
    by_way = of_ways(g, batch, workers)
    return min(by_way, key=by_way.__getitem__)


def best_parts(g: Geometry, batch: int, workers: int) -> list[int]:
    """Return the sizes of a batch's parts: one that fills vectors and the rest, or the whole."""
    rest = batch % g.lanes
    parts = [n for n in (batch - rest, rest) if n]
    apart = sum(min(of_ways(g, n, workers).values()) for n in parts)
    together = min(of_ways(g, batch, workers).values()) if batch else 0
    return parts if apart < together else [batch]


@functools.lru_cache(maxsize=256)
def of_ways(g: Geometry, batch: int, workers: int) -> dict[Way, float]:
    """Return the cost of each way, for each channel, in products of a vector with a number."""
    groups, products = -(-batch // g.lanes), len(g.reach) * g.channels
    by_way: dict[Way, float] = {
        "images": -(-groups // workers) * g.pixels * (products + costs.BESIDE["images"])
    }
    if rows.possible(g):
        strips = rows.Strips(g)
        levels = sum(map(strips.levels, range(strips.count)))
        if len(g.shape) > 2:
            levels *= -(-batch // workers) * math.prod(g.shape[:-2])
        else:  # threads share an image, too
            levels = -(-batch * levels // workers)
        by_way["rows"] = levels * (products + costs.BESIDE["rows"])
    if g.channels == 1 and g.pixels == g.shape[0]:  # signals
        of_number = len(g.reach) + costs.BESIDE["recursion"]
        by_way["recursion"] = -(-batch // workers) * g.pixels * of_number
    elif g.channels > 1:
        by_way["channels"] = _by_channels(g, batch, workers)
    return by_way


def together(batch: int, workers: int) -> int:
    """Return how many images of a batch share the weights, and a thread."""
    return min(costs.TOGETHER, -(-batch // workers))


def _by_channels(g: Geometry, batch: int, workers: int) -> float:
    """Return the cost of "channels": fewer than `TOGETHER` sums wait; products with y do not."""
    v, at_a_time = images.vectors_of(g), together(batch, workers)
    lines = min(g.shape[-2], costs.TOGETHER)
    levels = g.shape[-1] + g.lag * (lines - 1)
    sums = v.count * accumulators(g.block, g.single)
    waits = max(1.0, costs.TOGETHER / (sums * at_a_time * lines * g.shape[-1] / levels))
    of_vector = 1 + (len(g.reach) - 1) * waits + costs.BESIDE["channels"] / g.channels
    return -(-batch // workers) * g.pixels * v.count * of_vector
