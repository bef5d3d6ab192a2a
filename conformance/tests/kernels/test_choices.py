"""Choices that change no number but the time and the memory: ways, parts, threads, images.

What is chosen is possible, and costs least by the stated cost; costs are those counted by hand. A
constant of `costs` or `limits` that is tuned breaks none of this.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.arrays.stencil import Sweep
from invconv.families import path as paths
from invconv.families.convolutions import Causal
from invconv.kernels import exponential, order, pitched
from invconv.kernels.cpu import assembly, costs, recursive
from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.cpu.correlate import correlation, programs
from invconv.kernels.cpu.geometry import Geometry, geometry_of
from invconv.kernels.cpu.spectral.product import along
from invconv.operators.base import conditions, work

WIDE = Target("x86_64-unknown-linux-gnu", "skylake-avx512", "", 512, 32, fma=True)
NARROW = Target("x86_64-unknown-linux-gnu", "haswell", "", 256, 16, fma=True)
# channels, grid, and taps along each axis: a signal; images that are small, large, of many channels
SOLVES: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...] = (
    *((1, (4000,), (3,)), (3, (200,), (12,)), (12, (64, 64), (2, 2)), (48, (8, 8), (2, 2))),
    *((2, (700, 900), (2, 2)), (5, (3, 20, 9), (2, 3, 3)), (130, (5, 1), (3, 3))),
)
BATCHES = (1, 1), (1, 2), (5, 2), (19, 1), (64, 4)  # and workers


def geometry(
    channels: int, grid: tuple[int, ...], taps: tuple[int, ...], target: Target = WIDE
) -> Geometry:
    ones, zeros = (1,) * len(grid), (0,) * len(grid)
    sweep: Sweep = Causal.of(taps, zeros, ones, ones, True).sweep.on(grid)
    return geometry_of(channels, sweep, 4 if target is WIDE else 8, target)


@pytest.mark.parametrize("target", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("solve", SOLVES, ids=str)
def test_a_solve_takes_the_quickest_way(solve: Any, target: Target) -> None:
    g = geometry(solve[0], solve[1], solve[2], target)
    for batch, workers in BATCHES:
        ways = assembly.of_ways(g, batch, workers)
        assert ("recursion" in ways) == (solve[0] == 1 and len(solve[1]) == 1)
        assert ("channels" in ways) == (solve[0] > 1)
        assert ("rows" in ways) == (solve[1][-1] > 1 and len(solve[1]) > 1)
        best = assembly.best_program(g, batch, workers)
        assert ways[best.way] == min(ways.values())
        assert best.units(batch) * best.header.images >= batch
        more, helped = assembly.of_ways(g, batch + 16, 1), assembly.of_ways(g, batch, workers + 1)
        assert all(more[way] >= ways[way] >= helped[way] for way in ways)

        *filled, last = assembly.best_parts(g, batch, workers)
        assert sum(filled) + last == batch
        assert not any(n % g.lanes for n in filled)
        cost = [min(assembly.of_ways(g, n, workers).values()) for n in (*filled, last)]
        assert sum(cost) <= min(ways.values())


def test_costs_of_solves_are_those_counted_by_hand() -> None:
    beside = costs.BESIDE
    for images, groups in ((1, 1), (16, 1), (19, 2)):  # of 16
        ways = assembly.of_ways(geometry(1, (4000,), (3,)), images, 1)
        of_images = groups * 4000 * (3 + beside["images"])
        assert ways == {"images": of_images, "recursion": images * 4000 * (3 + beside["recursion"])}

    # four strips of 16 rows, a row a pixel behind the one above; four taps of 12 channels
    for images, workers, levels, most in ((19, 1, 19 * 4 * (64 + 15), 19), (5, 2, 790, 3)):
        ways = assembly.of_ways(geometry(12, (64, 64), (2, 2)), images, workers)
        assert ways["rows"] == levels * (48 + beside["rows"])
        assert ways["images"] == (2 if images > 16 else 1) * 64**2 * (48 + beside["images"])
        assert ways["channels"] == most * 64**2 * (4 + beside["channels"] / 12)
    one = assembly.of_ways(geometry(12, (64, 64), (2, 2)), 1, 1)  # whose 8 rows at once wait
    assert one["channels"] == 64**2 * (1 + 3 * (64 + 7) / 64 + beside["channels"] / 12)


@pytest.mark.parametrize("wrap", [False, True, "symmetric"])
@pytest.mark.parametrize("grid", [(40,), (16, 17), (3, 5, 4)])
def test_a_correlation_takes_the_quickest_way(grid: tuple[int, ...], wrap: Any) -> None:
    """With images in the lanes no product is with a zero beyond the grid."""
    offsets = tuple(itertools.product((-1, 0, 2), repeat=len(grid)))
    inside = math.prod(
        sum(wrap is not False or 0 <= i + o < n for i in range(n) for o in (-1, 0, 2)) for n in grid
    )
    given = correlation.compiled_correlation(4, grid, offsets, wrap, 4, WIDE)
    assert given is not None
    assert given.by_images is not None
    assert given.program.products >= given.by_images.program.products == inside
    for batch, workers in (*BATCHES, (2000, 3)):
        best, threads = correlation.way_of(given, batch, workers)
        ways = [given] if batch <= 8 else [given, given.by_images]
        assert best.seconds(batch, workers) == min(way.seconds(batch, workers) for way in ways)
        assert 1 <= threads <= min(workers, best.units(batch))
        for way in ways:
            assert way.seconds(batch + 16) > way.seconds(batch) >= way.seconds(batch, 2)
            assert way.units(batch) * way.program.header.images >= batch
    # three vectors of 16 images, a number of which takes 4 products for each tap of its pixel
    of_number = costs.COPY + costs.MULTIPLY * 4 * inside / math.prod(grid)
    assert given.by_images.seconds(40) == pytest.approx(48 * 4 * math.prod(grid) * of_number)
    read = programs.reading((2**11, 2**11), ((0, 0),), False)
    assert read is not None
    assert programs.images_program(read, 1, WIDE, 4) is None  # beyond the cache


def test_seconds_threads_and_distances() -> None:
    of_three = costs.COPY + 3 * costs.MULTIPLY
    assert costs.seconds(2, 3, 4, WIDE) == pytest.approx(2 * of_three)
    assert costs.seconds(2, 3, 8, NARROW) == pytest.approx(8 * of_three)
    assert costs.seconds(2, 3, 4, WIDE, copied=False) == pytest.approx(6 * costs.MULTIPLY)
    assert [costs.threads(4, x * costs.SHARED) for x in (0.99, 1)] == [1, 4]
    assert [costs.apart(n, 4) for n in (1000, 1024)] == [1000, 1024 + 16]
    assert [costs.apart(n, 8) for n in (512, 1000)] == [512 + 8, 1000]


def test_sums_hide_latencies_and_stay_accurate() -> None:
    """Twelve sums at once, or as many as a block of up to 8 channels has, if it has all of them."""
    sums = [(order.accumulators(n, True), order.unrolled(n, True)) for n in (1, 2, 5, 8, 9)]
    assert sums == [(1, 1), (2, 2), (2, 5), (1, 8), (1, 1)]
    assert {f(n, False) for n in (1, 8, 9) for f in (order.accumulators, order.unrolled)} == {1}
    assert [order.inverse_limit(n) for n in (1, 16, 17, 64, 512)] == [10, 10, 10, 20, 56]


def test_blocks_of_points_and_groups_of_signals_hold_all() -> None:
    for points, most in itertools.product(range(1, 99), costs.SUMS.values()):
        count, block = along(points, most)
        assert block <= max(8, most)
        assert count * block - block < points <= count * block
    assert [along(n, 24) for n in (9, 33, 200)] == [(1, 16), (3, 16), (13, 16)]
    for (target, itemsize), rows in itertools.product(((WIDE, 4), (NARROW, 8)), range(1, 40)):
        groups = recursive.groups(recursive.Filter(2, 2, 2, 2), target, itemsize, rows)
        firsts, stops = [first for _, first, _ in groups], [stop for *_, stop in groups]
        assert [*firsts, rows] == [0, *stops]
        idle = sum(-(stop - first) % lanes for lanes, first, stop in groups)
        assert idle < target.lanes(itemsize) - 2  # three signals in the lanes are worth it
    parts = recursive._parts(recursive.Filter(1, 1, 2, 0), 8, 64, 3)
    assert [rows for _, *rows in parts] == [[0, 24], [24, 48], [48, 64]]
    for zeros, poles in itertools.product((1, 5, 20, 40), repeat=2):
        at_once = recursive.Filter(1, zeros, poles, 30).at_once
        assert at_once <= costs.SECTIONS
        assert at_once * (zeros + poles + 1) <= costs.FILTER


def test_runs_of_numbers_at_equal_distances_are_read_as_one_block() -> None:
    blocks = pitched._blocks([0, 2, 10, 12, 20, 22, 31], 2)
    assert blocks == ((0, 10, 3, 4), (31, 0, 1, 2))  # the first, the distance, how many, how long


@pytest.mark.parametrize("eps", [2.0**-23, 2.0**-52])
def test_an_exponential_has_as_few_terms_as_are_enough(eps: float) -> None:
    """What a step leaves out, phi^n / n! e^phi for the first n left out, is at most eps."""

    def left_out(phi: float, terms: int) -> float:
        return phi ** (terms + 1) / math.factorial(terms + 1) * math.exp(phi)

    for norm in (1e-9, 0.3, 1.0, 3.9, 4.01, 100.0, 4096.0):
        steps, terms = exponential.counts_for(norm, eps)
        assert (steps - 1) * 4 < norm <= steps * 4
        assert left_out(norm / steps, terms) <= eps * (1 + 1e-9)
        assert terms == 1 or left_out(norm / steps, terms - 1) > eps * (1 - 1e-9)
    assert [exponential.counts_for(norm, eps) for norm in (4097.0, math.nan)] == [(0, 0)] * 2


def test_the_work_of_a_judgement_is_that_counted_by_hand() -> None:
    path = paths.linear(ic.Conv1x1(np.eye(3)).asarrays(np.ones(1))._path())
    products, numbers = 3 * 60, 60
    by_hand = 8 * numbers + products * (1 / 3 + 1 / 16)
    assert work.work_of(path, 3, (4, 5)) == pytest.approx((True, False, by_hand))
    compiled = 8 * numbers + products / 16
    assert work.of_estimate(path, 3, (4, 5), False) == pytest.approx(12 * compiled / 20)
    assert work.of_estimate(path, 3, (4, 5), True) == pytest.approx(6 * compiled / 20)
    assert not work.quicker_by_blas(path, (4, 5))  # no sum over taps
    corner = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0))
    taps = paths.linear(corner._path())
    assert [work.quicker_by_blas(taps, (n, n)) for n in (8, 4096)] == [True, False]


def test_a_part_of_a_grid_has_few_pixels_and_its_frequencies() -> None:
    corner = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0))
    assert conditions._smaller((40, 300), 1e5, corner) == (40, 300)
    assert conditions._smaller((40, 300), 500.0, corner) == (20, 19)
    ring = ic.PeriodicConv.init(3, rng=np.random.default_rng(0))
    assert conditions._smaller((30, 64), 500.0, ring) == (30, 16)
    assert conditions._smaller((30, 63), 500.0, ring) == (15, 21)
