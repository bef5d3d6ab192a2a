"""How long each way to solve takes; a way changes no bit of the result."""

import functools
import math
from typing import Literal

from invconv.kernels.cpu import costs
from invconv.kernels.cpu.geometry import Geometry
from invconv.kernels.cpu.lanes import images, rows
from invconv.kernels.order import accumulators

# the modules of `cpu.lanes`, and a recursion without lanes
Way = Literal["images", "rows", "channels", "recursion"]


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
    """Return the cost of a solve for each channel, in products of a vector with a number.

    Fewer sums than `TOGETHER` wait for each other; y's products wait for nothing.
    """
    v, at_a_time = images.vectors_of(g), together(batch, workers)
    lines = min(g.shape[-2], costs.TOGETHER)
    levels = g.shape[-1] + g.lag * (lines - 1)
    sums = v.count * accumulators(g.block, g.single)
    at_once = sums * at_a_time * lines * g.shape[-1] / levels
    waits = max(1.0, costs.TOGETHER / at_once)
    of_vector = 1 + (len(g.reach) - 1) * waits + costs.BESIDE["channels"] / g.channels
    return -(-batch // workers) * g.pixels * v.count * of_vector
