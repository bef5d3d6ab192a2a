"""How the plain wavefront runs: where its pixels are, what it asks of a library, what it keeps."""

from __future__ import annotations

import copy
import itertools
import pickle
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.arrays.stencil import Offset
from invconv.kernels.plain import layout as pitched_layout
from invconv.kernels.plain.pitched import NUMPY, PitchedSolver, StridedOps
from invconv_torch.native.waves import TORCH
from tests.kernels.test_pitched import OPS, Shape, draw, folded, solved, solver_of
from tests.on_torch.test_torch_traced import WithoutDriver


def test_the_plan_counts_the_wavefronts() -> None:
    rng = np.random.default_rng(0)

    def levels(grid: Shape, **settings: Any) -> int:
        conv: Any = ic.AutoregressiveConv.init(2, ndim=len(grid), rng=rng, **settings)
        plan = solver_of(conv, grid, "numpy", "float64", folded=True).plan
        assert set(plan) == {"method", "at the pixel", "levels"}
        assert (plan["method"], plan["at the pixel"]) == ("pitched wavefront", "cached inverse")
        return int(plan["levels"])

    assert levels((7,)) == 7
    assert levels((4, 6)) == 9
    assert levels((4, 6), direction=(1, -1)) == 9
    assert levels((4, 6), kernel_size=2, mask="raster") == 12
    assert levels((3, 4, 6)) == 3 * 9
    assert levels((4, 6), dilation=2) == 4 * 4


def test_a_solver_holds_no_state_and_is_copied_as_it_is() -> None:
    for library, with_inverse in itertools.product(OPS, (True, False)):
        conv, grid, rng = draw(1)
        solver = solver_of(conv, grid, library, "float64", with_inverse)
        before = dict(vars(solver))
        y = rng.standard_normal((2, conv.channels, *grid))
        x = solved(solver, y)
        assert vars(solver) == before
        stored = pickle.dumps(solver)
        assert len(stored) < 5000
        for other in (pickle.loads(stored), copy.deepcopy(solver)):
            assert other.ops == solver.ops
            again = other(y if library == "numpy" else torch.as_tensor(y))
            np.testing.assert_array_equal(to_numpy(again), x)
    assert pitched_layout.layout.cache_info().maxsize is not None


def test_places_of_different_pixels_differ_and_reads_stay_inside() -> None:
    """No pixel's place is what a tap reads where it leaves the grid: such places are never set."""
    for seed in range(60):
        conv, grid, _ = draw(seed)
        causal = conv._causal().within(grid)
        shape = (2, conv.channels, *grid)
        plan = pitched_layout.layout(shape, causal.reach, causal.direction)
        pixels = np.indices((2, *grid)).reshape(1 + len(grid), -1)
        strides = np.array((plan.strides[0], *plan.strides[2:]))
        places = plan.start + strides @ pixels
        assert len(set(places)) == len(places)
        solved_at = [p + plan.pitch * i for p, n in plan.steps for i in range(n)]
        assert sorted(solved_at) == sorted(places)
        position = {place: i for i, place in enumerate(solved_at)}
        for tap in causal.reach:
            offset = np.multiply(causal.direction, tap)
            read = places - strides[1:] @ offset
            source = pixels[1:].T - offset
            inside = np.all((source >= 0) & (source < grid), axis=1)
            for at, here, there in zip(places, read, inside.tolist(), strict=True):
                assert 0 <= here <= plan.length - conv.channels
                assert (here in position) == there
                assert not there or position[here] < position[at]


def test_products_keep_all_digits() -> None:
    """`exact` is entered before the first product and left after the last one."""
    conv, grid, rng = draw(1)
    inside, seen = [False], []

    class Watched(nullcontext[None]):
        def __enter__(self) -> None:
            inside[0] = True

        def __exit__(self, *error: object) -> None:
            inside[0] = False

    def product(a: Any, b: Any, out: Any) -> None:
        seen.append(inside[0])
        np.matmul(a, b, out=out)

    ops = replace(NUMPY, exact=lambda x: Watched(), matmul=product)
    solver = replace(solver_of(conv, grid, "numpy", "float64", folded=True), ops=ops)
    solver(rng.standard_normal((2, conv.channels, *grid)))
    assert seen
    assert all(seen)
    assert not inside[0]


@folded
@pytest.mark.parametrize("seed", range(4))
def test_torch_looks_at_no_value_and_leaves_no_device(seed: int, folded: bool) -> None:
    conv, grid, _ = draw(seed)
    host = solver_of(conv, grid, "torch", "float32", folded)
    with FakeTensorMode(), WithoutDriver(), torch.no_grad():
        causal = replace(
            host.causal,
            diagonal=torch.empty(host.causal.diagonal.shape, device="cuda"),
            taps=torch.empty(host.causal.taps.shape, device="cuda"),
        )
        inverse = torch.empty(causal.diagonal.shape, device="cuda") if folded else None
        y = torch.empty((2, conv.channels, *grid), device="cuda")
        x = PitchedSolver(causal, inverse, grid, TORCH)(y)
    assert (x.device.type, x.dtype, tuple(x.shape)) == ("cuda", torch.float32, tuple(y.shape))
    assert x.is_contiguous()


def test_ops_can_be_replaced_by_any_library() -> None:
    """What a library must supply is enough with the default ways to copy and substitute."""
    plain = StridedOps(NUMPY.as_strided, NUMPY.matmul, NUMPY.exact)
    conv, grid, rng = draw(5)
    for with_inverse in (True, False):
        solver = solver_of(conv, grid, "numpy", "float64", with_inverse)
        y = rng.standard_normal((2, conv.channels, *grid))
        np.testing.assert_array_equal(replace(solver, ops=plain)(y), solver(y))


def test_runs_are_joined_into_few_copies() -> None:
    def blocks(reach: tuple[Offset, ...]) -> tuple[Any, ...]:
        return pitched_layout.layout((2, 3, 5, 6), reach, (1, 1)).blocks

    corner = blocks(((0, 1), (1, 0), (1, 1)))
    assert [(many, run) for _, _, many, run in corner] == [(2, 6)]
    raster = blocks(((0, 1), (1, -1), (1, 0), (1, 1)))
    assert [(many, run) for _, _, many, run in raster] == [(1, 9), (1, 6)]
    sparse = blocks(((0, 2), (2, 0)))
    assert sum(many * run for _, _, many, run in sparse) == 9
