"""How good the choices of the planner (`invconv.tiles`) are.

``OMP_NUM_THREADS=1 python -m invconv_benchmarks.planner`` times, in NumPy, what the planner ranks
highest for images of many shapes, and prints what it chose beside the fastest.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
from rich.console import Console

import invconv as ic
from invconv import tiles
from invconv.numpy_primitives import Floats, costs
from invconv.tiles import Choice
from invconv_benchmarks import maps
from invconv_benchmarks.gemm_share import seconds
from invconv_benchmarks.suites import LIMIT_SHAPES, Shape, as_text
from invconv_benchmarks.tables import new

MORE_SHAPES = (
    (1, 1, 128, 128),
    (1, 3, 64, 64),
    (1, 24, 32, 32),
    (1, 48, 16, 16),
    (4, 24, 16, 16),
    (8, 6, 64, 64),
    (16, 3, 32, 32),
    (256, 1, 28, 28),
)
RANKS, ROUNDS = 9, 7


@dataclass(frozen=True)
class Found:
    """The seconds of what the planner chose, and of the fastest of what it ranked."""

    name: str
    chosen: Choice
    seconds: float
    fastest: Choice
    least: float

    @property
    def ratio(self) -> float:
        """How much longer the choice takes, as a ratio."""
        return self.seconds / self.least


def measure(shapes: tuple[Shape, ...], dtypes: tuple[str, ...]) -> Iterator[Found]:
    """Time the choices for each shape and dtype."""
    for shape in shapes:
        for dtype in dtypes:
            y = np.random.default_rng(0).standard_normal(shape).astype(dtype)
            conv = maps.build("corner 2", shape[1]).asarrays(y)
            sizes = (shape[0], shape[1], shape[2], shape[3])
            order = tiles.ranked(sizes, ((0, 1), (1, 0), (1, 1)), costs(), y.itemsize)
            times = _in_turns(conv, y, order[:RANKS])
            (chosen, seconds), *_ = times.items()
            fastest = min(times, key=lambda choice: times[choice])
            name = f"{as_text(shape)} {dtype.replace('float', 'f')}"
            yield Found(name, chosen, seconds, fastest, times[fastest])


def _in_turns(
    conv: ic.InvertibleConv, y: Floats, choices: tuple[Choice, ...]
) -> dict[Choice, float]:
    """Return the median seconds of choices that take turns."""
    ready = []
    for choice in choices:
        with mock.patch.object(tiles, "ranked", return_value=(choice, tiles.SAFE)):
            ready.append(conv.prepare(y.shape[2:], check=False))
            ready[-1].inverse(y)
    samples: list[list[float]] = [[] for _ in ready]
    for _ in range(ROUNDS):
        for taken, prepared in zip(samples, ready, strict=True):
            prepared.inverse(y)  # others have been in the cache
            taken.append(seconds(functools.partial(prepared.inverse, y)))
    return {c: statistics.median(s) for c, s in zip(choices, samples, strict=True)}


def main() -> None:
    """Print a line for each shape and dtype, and what the choices cost in the mean."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    table = new("", ("images", "chosen", "fastest"), ("ms", "least", "ratio"))
    found = []
    for one in measure((*LIMIT_SHAPES, *MORE_SHAPES), ("float32", "float64")):
        found.append(one)
        words = [f"{h}x{w} {way}" for (h, w), way in (one.chosen, one.fastest)]
        times = [f"{1e3 * one.seconds:.3f}", f"{1e3 * one.least:.3f}", f"{one.ratio:.2f}"]
        table.add_row(one.name, *words, *times)
    console = Console()
    console.print(table)
    ratios = [one.ratio for one in found]
    console.print(
        f"The choice takes {statistics.mean(ratios) - 1:.1%} longer than the fastest in the mean, "
        f"{max(ratios) - 1:.0%} at most."
    )


if __name__ == "__main__":
    main()
