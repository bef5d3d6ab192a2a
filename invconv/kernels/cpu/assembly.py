"""The program of a solve."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from invconv.kernels.cpu.costs import REGISTERS
from invconv.kernels.cpu.geometry import Geometry
from invconv.kernels.cpu.lanes import images, rows
from invconv.kernels.cpu.lanes.costs import Way, best_way, together
from invconv.kernels.cpu.program import (
    Assembled,
    Header,
    Parts,
    Segment,
    filled,
    numbers_of,
    tap_list,
)
from invconv.kernels.order import inverse_limit


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
        """Numbers of the weights; a vector of D's last column may end behind the flag."""
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
    header = filled(Header, **numbers | parts.header)
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
    """Return the parts of a program of signals of one channel: one segment is a whole signal.

    It is solved number by number, from memory to memory. A tap's distance is in samples.
    """
    back = [o[0] for o in g.reach]
    # of the numbers solved last, those that are all read stay in registers
    near = next(n for n in range(REGISTERS + 1) if n == REGISTERS or n + 1 not in back)
    start = 0 if g.direction[0] > 0 else g.pixels - 1
    return Parts(
        {"images": 1, "units": 1, "row_step": g.direction[0], "last_row": max(back)},
        [list(enumerate(back))],
        [[filled(Segment, at=start, rows=g.pixels, columns=1)]],
        (near,),
    )


def best_program(g: Geometry, batch: int, workers: int) -> Program:
    """Return the program of the quickest way to solve a batch."""
    way = best_way(g, batch, workers)
    if way == "channels":
        return program(g, way, together=together(batch, workers))
    return program(g, way, way == "rows" and workers > 1)
