"""Choices that change no number but the time and the memory: ways, blocks, threads, images.

`choices.json` states them, for two processors and a GPU. Run this file as a program where a change
means to move some, and read the difference: which sizes take another way now?
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.families import path as paths
from invconv.families.convolutions import Causal, StencilFamily
from invconv.kernels import exponential, order, pitched, primitives
from invconv.kernels.cpu import costs, recursive
from invconv.kernels.cpu.assembly import best_parts, best_program, of_ways, program
from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.cpu.correlate import programs
from invconv.kernels.cpu.correlate.correlation import CompiledCorrelation
from invconv.kernels.cpu.geometry import geometry_of
from invconv.kernels.cpu.spectral import product
from invconv.kernels.cpu.spectral.product import Blocks, along
from invconv.kernels.cuda.plan import Device, plan_of
from invconv.kernels.frequencies.waves import Basis, real_transform
from invconv.operators.base import judgement as judged
from invconv.trust import limits
from invconv.trust.round_trip import RoundTrip

FILE = Path(__file__).with_name("choices.json")
TARGETS = {
    512: Target("x86_64-unknown-linux-gnu", "skylake-avx512", "", 512, 32, fma=True),
    256: Target("x86_64-unknown-linux-gnu", "haswell", "", 256, 16, fma=True),
}
GPU = Device(90, 227 * 1024, 132)
# channels, grid, taps along each axis, place of the pixel, direction, dilation
SWEEPS: tuple[tuple[Any, ...], ...] = (
    (1, (4000,), (3,), (0,), (-1,), (1,)),
    (3, (200,), (12,), (0,), (1,), (2,)),
    (3, (9, 40), (3, 3), (0, 1), (1, -1), (1, 1)),
    (12, (64, 64), (2, 2), (0, 0), (1, 1), (1, 1)),
    (30, (16, 17), (3, 5), (0, 2), (-1, 1), (2, 1)),
    (48, (8, 8), (2, 2), (0, 0), (1, 1), (1, 1)),
    (2, (700, 900), (2, 2), (0, 0), (1, 1), (1, 1)),
    (5, (3, 20, 9), (2, 3, 3), (0, 1, 1), (1, -1, 1), (1, 1, 1)),
    (130, (5, 1), (3, 3), (0, 1), (1, 1), (1, 1)),
)
RNG = np.random.default_rng(0)
OPERATORS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "corner": (ic.AutoregressiveConv.init(3, rng=RNG), (40, 300)),
    "wide corner": (ic.AutoregressiveConv.init(32, 7, rng=RNG), (64, 64)),
    "emerging": (ic.EmergingConv.init(12, rng=RNG), (16, 16)),
    "periodic": (ic.PeriodicConv.init(12, rng=RNG), (30, 64)),
    "one channel": (ic.PeriodicConv.init(1, 31, rng=RNG), (1000, 1000)),
    "mirrors": (ic.SymmetricConv.init(2, boundary="mirror", rng=RNG), (33, 5)),
    "exponential": (ic.ExponentialConv.init(16, rng=RNG), (7, 11)),
    "ring": (ic.ExponentialConv.init(16, padding="circular", rng=RNG), (7, 11)),
    "matrix": (ic.Conv1x1.init(96, rng=RNG), (64, 64)),
    "chain": (
        ic.Chain([ic.PLUConv1x1.init(8, rng=RNG), ic.QRConv1x1.init(8, rng=RNG)]),
        (128, 128),
    ),
    "scale": (ic.ActNorm.init(4, rng=RNG), (5,)),
}


def numbers(record: Any) -> dict[str, int]:
    return {name: n for name, n in dataclasses.asdict(record).items() if n}


def orders() -> Iterator[tuple[str, Any]]:
    for block, single in itertools.product((1, 2, 5, 6, 8, 9, 13), (True, False)):
        yield f"{block} {single}", [f(block, single) for f in (order.accumulators, order.unrolled)]
    yield "limits", [order.inverse_limit(channels) for channels in (1, 16, 17, 64, 512)]
    yield "threads", [costs.threads(4, costs.SHARED * x) for x in (0.99, 1)]
    yield "apart", [costs.apart(n, size) for n in (512, 1000, 1024) for size in (4, 8)]


def solves() -> Iterator[tuple[str, Any]]:
    for (channels, grid, *settings), bits in itertools.product(SWEEPS, TARGETS):
        sweep, itemsize = Causal.of(*settings, True).sweep.on(grid), 4 if bits == 512 else 8
        g = geometry_of(channels, sweep, itemsize, TARGETS[bits])
        label = f"{channels}x{grid} of {settings}, {itemsize} bytes, {bits} bits"
        for batch, workers in ((1, 1), (1, 2), (5, 2), (19, 1), (64, 4)):
            best, ways = best_program(g, batch, workers), of_ways(g, batch, workers)
            costs_of = {way: float(f"{cost:.6g}") for way, cost in ways.items()}
            parts = best.header.images, best.header.segments
            chosen = [best.way, best.sums, parts, best_parts(g, batch, workers), costs_of]
            yield f"{label}, batch {batch}, {workers} workers", chosen
        for way in ways:
            yield f"{label}, {way}", numbers(program(g, way, way == "rows", 3).header)


def correlations() -> Iterator[tuple[str, Any]]:
    wraps = False, True, "symmetric"
    for (channels, grid, taps, centre, *_), wrap, bits in itertools.product(SWEEPS, wraps, TARGETS):
        offsets = Causal.of(taps, centre, (1,) * len(grid), (2,) * len(grid), True).offsets
        read, itemsize = programs.reading(grid, offsets, wrap), 4 if bits == 512 else 8
        label = f"{channels}x{grid} of {taps}, {wrap}, {itemsize} bytes, {bits} bits"
        if read is None or math.prod(grid) * channels > 2**16:
            continue
        makes: dict[str, Any] = {
            "pixels": programs.correlation_program,
            "images": programs.images_program,
        }
        for lanes, make in makes.items():
            made = make(read, channels, TARGETS[bits], itemsize)
            if made is None:
                yield f"{label}, {lanes}", None
                continue
            run: Any = (TARGETS[bits], read, made, lanes, itemsize, None, None)
            seconds = [CompiledCorrelation(*run).seconds(b, w) for b, w in ((1, 1), (40, 3))]
            costing = [made.products, *(f"{s:.4g}" for s in seconds)]
            yield f"{label}, {lanes}", [numbers(made.header), costing]


def grids() -> Iterator[tuple[str, Any]]:
    for (_, grid, taps, centre, direction, dilation), wrap in itertools.product(
        SWEEPS, (True, False)
    ):
        offsets = Causal.of(taps, centre, direction, dilation, True).offsets
        found = primitives.grid_of(offsets, wrap, grid)
        yield f"{grid} of {taps}, {direction}, {dilation}, {wrap}", found and vars(found)


def layouts() -> Iterator[tuple[str, Any]]:
    for channels, grid, *settings in SWEEPS:
        sweep = Causal.of(*settings, True).sweep
        found = vars(pitched.layout((2, channels, *grid), sweep.reach, sweep.direction))
        yield f"{channels}x{grid} of {settings}", found | {"steps": len(found["steps"])}


def products() -> Iterator[tuple[str, Any]]:
    borders = ("periodic",) * 2, ("symmetric", "periodic"), ("odd", "mirror")
    for words, shape, (bits, target) in itertools.product(
        borders, ((8, 9), (40, 3)), TARGETS.items()
    ):
        basis, itemsize = Basis(words, (1, 1)), 4 if bits == 512 else 8
        transform = real_transform(basis.waves, shape, basis.frequencies(shape))
        blocks = [Blocks(2, 8), Blocks(3, 16), Blocks(1, 5)]
        given = 5, shape, transform, blocks, [1, 2, 3], target.lanes(itemsize), itemsize
        header = product.program(*given).header
        found = numbers(header) | {"places": transform.places[::5].tolist()}
        yield f"{words}, {shape}, {bits} bits", found


def filters() -> Iterator[tuple[str, Any]]:
    for bits, itemsize, rows in itertools.product(TARGETS, (4, 8), (1, 3, 8, 9, 11, 35)):
        groups = recursive.groups(recursive.Filter(2, 2, 2, 2), TARGETS[bits], itemsize, rows)
        yield f"{bits} bits, {itemsize} bytes, {rows} rows", groups
    parts = recursive._parts(recursive.Filter(1, 1, 2, 0), 8, 64, 3)
    yield "64 rows, 3 threads", [rows for _, *rows in parts]
    sizes = [(1, 20, 27), (1, 20, 28), (9, 2, 2), (4, 12, 12)]
    yield "sections at once", [recursive.Filter(*size, 30).at_once for size in sizes]


def axes() -> Iterator[tuple[str, Any]]:
    for most in costs.SUMS.values():
        yield f"{most} sums", [along(n, most) for n in (1, 8, 9, 16, 17, 33, 40, 41, 80, 81, 200)]


def launches() -> Iterator[tuple[str, Any]]:
    for channels, grid, *settings in SWEEPS:
        sweep = Causal.of(*settings, True).sweep.on(grid)
        for itemsize, shared in itertools.product((4, 8), (GPU.shared, 48 * 1024)):
            plan = plan_of(channels, sweep, itemsize, dataclasses.replace(GPU, shared=shared))
            label = f"{channels}x{grid} of {settings}, {itemsize} bytes, {shared}"
            if plan is None:
                yield label, None
                continue
            launches = [*plan.weigh(), *map(plan.solve, (1, 7, 500))]
            values = [[v.blocks, v.threads, v.shared, v.counters, *v.integers] for v in launches]
            yield label, [dict(plan.constants), *values]


def steps() -> Iterator[tuple[str, Any]]:
    for eps in (2.0**-23, 2.0**-52):
        yield f"reaches {eps:.1e}", [f"{n:.6g}" for n in exponential.reaches(eps)]
        for norm in (0.0, 1e-9, 0.3, 4.0, 4.01, 100.0, 4096.0, 4097.0, math.nan):
            yield f"{norm}, {eps:.1e}", exponential.counts_for(norm, eps)
    family = StencilFamily.of(((-1,), (0,), (1,)), False)
    for orders in (0, 1, 3):
        series = exponential.series(family, np.full((3, 2, 2), 3.0), (), None, orders)
        yield f"{orders} derivatives", series.counts


def images() -> Iterator[tuple[str, Any]]:
    """How many images judge an inverse, on which grid its condition is looked at."""
    for name, (conv, shape) in OPERATORS.items():
        path = paths.linear(conv._path())
        given = path, conv.channels, shape
        by_taps, _, work = judged.work_of(*given)
        estimates = [judged.of_estimate(*given, alike) for alike in (True, False)]
        parts = [judged._part(shape, quick, conv) for quick in (1.0, 500.0, 1e5)]
        drawn = [by_taps, *(int(limits.WORK / (times * work)) for times in (0.5, 1, 4))]
        quick = [judged.quicker_by_blas(path, shape), judged.images_of_growth(*given)]
        yield name, [drawn, quick, [f"{e:.6g}" for e in estimates], parts]
    for affordable, spectral, matrices in itertools.product(
        (0, 3, 7, 30, 200), (False, True), (False, True)
    ):
        shape, dtype = (2, 8), np.dtype("float64")
        signs = np.ones((2, *shape))
        trip = RoundTrip(abs, abs, abs, shape, dtype, signs, spectral=spectral, matrices=matrices)
        for limit in (None, 1e-2):
            total = _counted(trip, affordable, limit)
            yield f"{affordable}, {spectral}, {matrices}, {limit}", total


def _counted(trip: RoundTrip, affordable: int, limit: float | None) -> list[int]:
    """Return how many images a round trip draws if all is right, nearly lost, and lost."""
    totals = []
    for off in (0.0, 5e-4, 5e-3, 0.5):
        drawn = [0]

        def solve(y: Any, off: float = off, drawn: list[int] = drawn) -> Any:
            return y + off * np.abs(y).max(axis=tuple(range(1, y.ndim)), keepdims=True)

        def count(x: Any, drawn: list[int] = drawn) -> Any:
            drawn[0] += len(x)
            return x

        dataclasses.replace(trip, own=count, other=count, solve=solve).error(affordable, limit)
        totals.append(drawn[0])
    return totals


_SECTIONS = orders, solves, correlations, grids, layouts, products, filters, axes, launches
SECTIONS = {f.__name__: f for f in (*_SECTIONS, steps, images)}


def plain(section: str) -> Any:
    return json.loads(json.dumps(dict(SECTIONS[section]())))


@pytest.mark.parametrize("section", SECTIONS)
def test_choices_are_those_that_are_stated(section: str) -> None:
    assert plain(section) == json.loads(FILE.read_text())[section]


def test_constants_count_as_they_are_now(monkeypatch: Any) -> None:
    """`invconv benchmark choices` changes each."""
    for name, taken in (("COPY", 6 * costs.MULTIPLY), ("MULTIPLY", 2 * costs.COPY)):
        with monkeypatch.context() as patch:
            patch.setattr(costs, name, 0.0)
            assert costs.seconds(2, 3, 4, TARGETS[512]) == pytest.approx(taken)


if __name__ == "__main__":
    lines = {
        n: [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in plain(n).items()] for n in SECTIONS
    }
    parts = (f'"{name}": {{\n' + ",\n".join(each) + "\n}" for name, each in lines.items())
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n")
