"""The plan of the CUDA kernel: what fits on which device, what is launched with which numbers."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from invconv.kernels.cuda.arguments import GRID
from invconv.kernels.cuda.plan import Device, Plan, plan_of

KIB = 1024
LIMITS = (48 * KIB, 64 * KIB, 99 * KIB, 163 * KIB, 227 * KIB)
HOPPER = Device(90, 227 * KIB, 132)


def corner(size: int, ndim: int) -> tuple[tuple[int, ...], ...]:
    """Return the offsets of a corner, that of the pixel itself left out."""
    return tuple(o for o in itertools.product(range(size), repeat=ndim) if any(o))


def planned(
    channels: int, shape: tuple[int, ...], size: int = 2, itemsize: int = 4, device: Device = HOPPER
) -> Plan | None:
    ones = (1,) * len(shape)
    return plan_of(channels, shape, corner(size, len(shape)), ones, ones, True, itemsize, device)


# channels, grid, taps an axis, bytes: rows of a band that fit in 48, 64, 99, 163, 227 KiB; a number
# with a star where the weights lie beside them; 0 where wavefronts solve
TABLE: dict[tuple[int, tuple[int, ...], int, int], tuple[str, ...]] = {
    (12, (32, 32), 2, 4): ("29", "32", "32", "32", "32"),
    (12, (64, 64), 2, 4): ("14", "19", "30", "51", "64"),
    (48, (16, 16), 2, 4): ("12", "9*", "16*", "16*", "16*"),
    (96, (8, 8), 2, 4): ("8", "8", "8", "8*", "8*"),
    (3, (256, 256), 2, 4): ("2", "4", "7", "12", "17"),
    (12, (512, 512), 2, 4): ("0", "1", "3", "5", "8"),
    (12, (512, 512), 2, 8): ("0", "0", "0", "1", "3"),
    (512, (4, 4), 2, 4): ("2", "4", "4", "4", "4"),
    (512, (4, 4), 2, 8): ("0", "1", "2", "4", "4"),
    (1, (100_000,), 7, 4): ("0", "0", "0", "0", "0"),
    (1, (10_000,), 7, 4): ("1", "1", "1", "1", "1"),
    (6, (8, 8, 8), 3, 4): ("8", "8", "8", "8", "8"),
}


@pytest.mark.parametrize("setting", TABLE)
def test_what_fits_on_which_device(setting: tuple[int, tuple[int, ...], int, int]) -> None:
    found = []
    for shared in LIMITS:
        plan = planned(*setting, Device(90, shared, 132))
        found.append(
            "0" if plan is None else f"{plan.most_rows}{'*' if plan.weights_shared else ''}"
        )
    assert tuple(found) == TABLE[setting]


@pytest.mark.parametrize("setting", TABLE)
@pytest.mark.parametrize("batch", [1, 3, 64, 1000])
def test_launches_are_possible(setting: tuple[int, tuple[int, ...], int, int], batch: int) -> None:
    for shared, processors in itertools.product(LIMITS, (1, 40, 132)):
        plan = planned(*setting, Device(90, shared, processors))
        if plan is None:
            continue
        launch = plan.solve(batch)
        grid = dict(zip(GRID, launch.integers, strict=True))
        rows, bands, depth = grid["rows"], grid["bands"], plan.layout.depth
        assert rows * bands >= plan.plane[0] > rows * (bands - 1)
        assert bands == 1 or rows >= max(1, depth)
        assert launch.shared == plan.band_bytes(rows) <= shared
        assert plan.layout.channels <= launch.threads <= plan.layout.threads <= 1024
        assert launch.threads % 32 == 0
        planes = grid["extent_0"] * grid["extent_1"]
        assert launch.blocks == planes * bands * batch
        assert launch.counters == (launch.blocks + 1 if planes * bands > 1 else 0)


def test_one_row_less_would_fit_and_one_more_would_not() -> None:
    for setting, shared in itertools.product(TABLE, LIMITS):
        plan = planned(*setting, Device(90, shared, 132))
        if plan is not None and plan.most_rows < plan.plane[0]:
            assert plan.band_bytes(plan.most_rows) <= shared < plan.band_bytes(plan.most_rows + 1)


def test_what_the_kernel_is_not_for() -> None:
    assert planned(3, (4,) * 4) is not None
    assert planned(3, (4,) * 5) is None
    assert planned(512, (2, 2)) is not None
    assert planned(513, (2, 2)) is None
    assert planned(3, (4, 4), itemsize=2) is None
    assert planned(3, (4, 4), device=dataclasses.replace(HOPPER, architecture=61)) is None
    assert planned(1, (9,) * 4, size=6) is None  # 1295 taps
    assert planned(512, (2048, 2048)) is None  # more numbers in an image than an int counts


def test_the_numbers_that_a_launcher_passes() -> None:
    reach = ((0, 1), (1, 0), (1, 1))
    plan = plan_of(3, (6, 8), reach, (-1, 1), (1, 9), False, 8, HOPPER)
    assert plan is not None
    launch = plan.solve(5)
    grid = dict(zip(GRID, launch.integers, strict=True))
    assert launch.struct.tobytes() == np.array(launch.integers, np.int32).tobytes()
    assert len(launch.struct.tobytes()) == 4 * len(GRID) == 72
    assert [grid[f"extent_{a}"] for a in range(4)] == [1, 1, 6, 8]
    # nothing but the tap of the row above reaches a pixel; a dilation is cut to the grid's length
    assert [grid[f"step_{a}"] for a in range(4)] == [48, 48, -8, 8]
    assert [grid[f"dilation_{a}"] for a in range(4)] == [1, 1, 1, 8]
    assert plan.layout.offsets == ((0, 0, 1, 0),)
    assert plan.layout.order == (1,)
    assert (grid["images"], grid["lower"]) == (5 * 8, 0)
    assert plan.weights == (1 + 1 + 1) * 9 + 1 + 6
    fold, decide = plan.weigh()
    assert fold.blocks * fold.threads >= 2 * 3
    assert decide.threads >= 3 * 9 + 1
    assert {fold.shared, decide.shared, fold.counters, decide.counters} == {0}


def test_taps_are_in_the_order_of_the_cpu() -> None:
    from invconv.kernels.cpu.compiler.target import Target
    from invconv.kernels.cpu.geometry import geometry_of

    reach = corner(3, 3)
    settings = (1, 1, 1), (1, 2, 3), True, 4
    plan = plan_of(5, (3, 7, 5), reach, *settings, HOPPER)
    g = geometry_of(5, (3, 7, 5), reach, *settings, Target("", "", "", 512, 32, True))
    assert plan is not None
    assert tuple(1 + t for t in plan.layout.order) == g.order[1:]
