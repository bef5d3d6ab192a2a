"""How long the CUDA kernel would take on an H100, by a model: nothing here was measured.

``python -m invconv_benchmarks.studies.cuda_model`` prints microseconds of one factor's solve in
float32 for the launches that `invconv.kernels.cuda.plan` chooses, and beside them

- the least that any height of a band and any number of threads would take in the same model: what
  the plan's simple rules cost;
- two sums of products in turn instead of one: what the order of the CPU's sums costs, which is kept
  so that both give the same bits;
- a solve by wavefronts, launched one by one or as a captured graph; a convolution; and a launch a
  diagonal and a channel, each synchronised (FInC's way).

A level takes as long as the slowest of: instructions, reads of shared memory, the chain of
dependent operations; and a barrier. The constants are an H100's clock, its numbers of units, and
latencies as microbenchmarks report them, to one digit.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from invconv.kernels.cuda.arguments import GRID, Launch
from invconv.kernels.cuda.plan import Device, Plan, plan_of
from invconv_benchmarks.report.tables import new
from invconv_conformance import printing

H100 = Device(90, 227 * 1024, 132)
GHZ = 1.7
# clocks: a barrier; what begins and ends a level; a flag and rows of another block; reads of shared
# memory; a multiply-add; to copy a number, in bytes a clock and processor from memory or the cache
BARRIER, LEVEL, FLAG, READ, FMA = 35, 120, 1200, 30, 4
FROM_MEMORY, FROM_CACHE = 13, 40
INSTRUCTIONS = (
    2.0  # for each multiply-add: 1.7 to 2.3 in the machine code with four pixels a thread
)
REGISTERS = 140  # of a thread
# microseconds: a launch, an operation of PyTorch, a node of a graph, a launch that is waited for
LAUNCH, OPERATION, NODE, WAITED = 4.0, 5.0, 1.6, 8.0
PEAK, BANDWIDTH = 67e12 * 0.5, 3e12  # of a convolution: half of the float32 rate; bytes a second

SHAPES = (
    (100, 3, 32, 32),
    (100, 12, 32, 32),
    (64, 24, 8, 8),
    (64, 48, 16, 16),
    (16, 48, 64, 64),
    (1, 12, 16, 16),
    (1, 12, 64, 64),
    (1, 3, 256, 256),
    (1, 12, 512, 512),
)


@dataclass(frozen=True)
class Modelled:
    """What the model says of a shape, in microseconds.

    Attributes
    ----------
    shape : tuple of int
        Images, channels, rows, columns.
    size : int
        Taps along an axis.
    launch : Launch
    kernel, best, two_sums : float
        The plan's launch; the best one; the plan's with two sums in turn.
    wavefronts, graph, convolution, synchronised : float
    """

    shape: tuple[int, int, int, int]
    size: int
    launch: Launch
    kernel: float
    best: float
    two_sums: float
    wavefronts: float
    graph: float
    convolution: float
    synchronised: float


def modelled(shape: tuple[int, int, int, int], size: int) -> Modelled:
    """Return what the model says of a shape."""
    batch, channels, height, width = shape
    reach = tuple(o for o in itertools.product(range(size), repeat=2) if any(o))
    plan = plan_of(channels, (height, width), reach, (1, 1), (1, 1), True, 4, H100)
    assert plan is not None
    launch, levels = plan.solve(batch), height + width - 1
    flop = 2 * batch * height * width * (channels * size) ** 2
    moved = 8 * batch * channels * height * width
    return Modelled(
        shape,
        size,
        launch,
        kernel=microseconds(plan, launch),
        best=min(microseconds(plan, other) for other in _launches(plan, batch)),
        two_sums=microseconds(plan, launch, sums=2),
        # products of each row of taps, a triangular solve and a copy a level
        wavefronts=levels * (size + 2) * OPERATION,
        graph=levels * (size + 2) * NODE + flop / (0.3 * PEAK) * 1e6,
        convolution=max(flop / PEAK, moved / BANDWIDTH) * 1e6 + LAUNCH,
        synchronised=levels * channels * WAITED,
    )


def _launches(plan: Plan, batch: int) -> Iterator[Launch]:
    """Yield launches in bands of any height, with any number of threads."""
    heights = {*range(max(1, plan.layout.depth), 20), 24, 32, 48, 64, plan.most_rows}
    for rows in heights:
        for threads in range(32, 513, 32):
            if plan.layout.depth <= rows <= plan.most_rows and threads >= plan.layout.channels:
                yield plan.in_bands(batch, rows, threads)


def microseconds(plan: Plan, launch: Launch, sums: int = 1) -> float:
    """Return how long a launch takes in the model, with so many sums in turn."""
    grid = dict(zip(GRID, launch.integers, strict=True))
    channels, width = plan.layout.channels, plan.plane[1]
    rows, bands, chunk = grid["rows"], grid["bands"], grid["chunk"]
    warps, slots = launch.threads // 32, launch.threads // channels
    fit = min(227 * 1024 // launch.shared, 65536 // (launch.threads * REGISTERS), 64 // warps)
    resident = max(1, fit)
    together = min(resident, math.ceil(launch.blocks / H100.processors))
    turns = math.ceil(launch.blocks / (H100.processors * resident))
    vectors, taps = math.ceil(channels / 4), len(plan.layout.offsets)

    def products(count: int, pixels: int) -> float:
        issued = 4 * pixels * max(INSTRUCTIONS, 1.3 + (pixels + 4) / (4 * pixels))
        busy = issued * math.ceil(warps * together / 4), (pixels + 4) * warps * together
        return count * max(*busy, READ / 2 + 4 * FMA / sums)

    slow = 1.0 if plan.weights_shared or plan.layout.weights_kept else 2.5  # weights from the cache
    solved, levels = 0.0, width + plan.layout.slope * (rows - 1)
    for level in range(levels):
        pixels = min(rows - 1, level) - max(0, level - width + 1) + 1
        each = 4 if pixels > 2 * slots else 2 if pixels > slots else 1
        rounds = math.ceil(pixels / (slots * each))
        solved += rounds * products(vectors * taps, each) * slow + BARRIER + LEVEL
    begun = math.ceil(rows * width / (slots * 4)) * (products(vectors, 4) + 2 * BARRIER)
    speed = FROM_MEMORY if launch.blocks * together >= H100.processors else FROM_CACHE
    numbers = rows * width * channels * together
    copied = 1.6 * (4 * numbers / speed + 5 * numbers / 32 + 1000)
    behind = 0.0
    if bands > 1:
        behind = (bands - 1) * ((rows + chunk) * solved / levels + FLAG) + levels * 400 / chunk
    return turns * (copied + begun + solved + behind) / GHZ / 1e3 + LAUNCH


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.parse_args(argv)
    table = new(
        "A model of an H100, µs a factor, float32: nothing was measured",
        ("shape", "taps", "bands × threads"),
        ("kernel", "best", "two sums", "wavefronts", "graph", "conv2d", "FInC"),
    )
    for shape, size in itertools.product(SHAPES, (2, 3)):
        found = modelled(shape, size)
        bands = found.launch.integers[GRID.index("bands")]
        ratios = (f"×{t / found.kernel:.2f}" for t in (found.best, found.two_sums))
        others = found.wavefronts, found.graph, found.convolution, found.synchronised
        table.add_row(
            "×".join(map(str, shape)),
            f"{size}×{size}",
            f"{bands} × {found.launch.threads}",
            f"{found.kernel:.0f}",
            *ratios,
            *(f"{time:.0f}" for time in others),
        )
    printing.console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
