"""PyTorch's launches: with CUDA tensors that have no memory, and with numbers on this processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from invconv_torch.native import solvers
from tests.launches import checks
from tests.launches.stand_in_driver import STREAM, Driver, forget

Build = Callable[..., tuple[Any, Any]]

pytestmark = [pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")]


@pytest.mark.parametrize(
    "shapes", [checks.SMALL, pytest.param(checks.SHAPES, marks=pytest.mark.slow)]
)
def test_what_a_gpu_must_do(shapes: Any, on_this_processor: Driver) -> None:
    torch._dynamo.reset()
    checks.of_torch("cpu", shapes)
    assert [launched.kernel for launched in on_this_processor.launches].count("solve") >= 8


def test_a_prepared_solve_is_one_launch_and_its_plan_says_so(
    on_this_processor: Driver, torch_layer: Build
) -> None:
    layer, x = torch_layer("autoregressive-2d")
    with torch.no_grad():
        prepared = layer.operator().prepare((3, 4), check=False)
        assert prepared.plan.method == "CUDA kernel"
        before = len(on_this_processor.launches)
        one, two = prepared.inverse(x), prepared.inverse(x.to(memory_format=torch.channels_last))
    after = on_this_processor.launches[before:]
    assert [launched.kernel for launched in after] == ["solve", "solve"]
    assert torch.equal(one, two)
    assert two.is_contiguous(memory_format=torch.channels_last)
    assert {launched.stream for launched in after} == {STREAM}


def test_without_a_kernel_wavefronts_solve(
    on_this_processor: Driver, torch_layer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invconv.kernels.cuda.driver.NAMES", ())
    forget()
    layer, _ = torch_layer("autoregressive-2d")
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="the CUDA driver was not found"):
        prepared = layer.operator().prepare((3, 4), check=False)
    assert prepared.plan.method == "pitched wavefront"


def test_where_no_row_fits_wavefronts_solve(on_this_processor: Driver, torch_layer: Build) -> None:
    on_this_processor.library.stand_in_attribute(97, 512)  # bytes of shared memory
    layer, x = torch_layer("autoregressive-2d", grid_factor=8)
    with torch.no_grad():
        prepared = layer.operator().prepare(tuple(x.shape[2:]), check=False)
        assert prepared.plan.method == "pitched wavefront"
        back = layer.forward(prepared.inverse(x))[0]
    torch.testing.assert_close(back, x)
    assert on_this_processor.launches == []


def test_tensors_in_host_memory_and_fake_ones_are_not_launched() -> None:
    assert solvers.CUDA.ordinal(torch.zeros(1)) is None
    with FakeTensorMode():
        assert solvers.CUDA.ordinal(torch.empty(1, device="cuda")) is None
