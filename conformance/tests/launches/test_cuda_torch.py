"""PyTorch's launches: with CUDA tensors that have no memory, and with numbers on this processor."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call

from invconv.kernels.cuda.launch import DeviceOps, DeviceSolve
from invconv_torch.native import devices, solvers
from tests.launches import checks
from tests.launches.stand_in_driver import STREAM, Driver, Launched, forget
from tests.on_torch.modules import Method
from tests.on_torch.test_torch_traced import WithoutDriver, gradients, on_cuda

Build = Callable[..., tuple[Any, Any]]
NAMES = ("autoregressive-2d", "autoregressive-3d", "emerging-2d")
MORE = ("autoregressive-1d", "raster-2d", "emerging-1d", "emerging-3d")  # of the same code
layers = pytest.mark.parametrize(
    "name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>"),
]


@dataclass
class FakeMemory:
    """Addresses for CUDA tensors that have no memory, and what lies at each."""

    tensors: dict[int, Any] = field(default_factory=dict)

    def address(self, x: Any) -> int:
        """Return a new address, of more bits than an int has."""
        found = 0x7F00_0000_0000 + 0x1000 * len(self.tensors)
        self.tensors[found] = x
        return found

    def check(self, launched: Launched, dtype: Any, image: tuple[int, ...]) -> None:
        """Compare the tensors of a launch with what `invconv.kernels.cuda.arguments` says."""
        grid = launched.grid
        found = {name: self.tensors[at] for name, at in launched.pointers.items() if at}
        for name, x in found.items():
            assert str(x.device) == "cuda:0", f"{name}: on {x.device}"
            assert x.is_contiguous(), f"{name}: strides {x.stride()}"
        counters = found.pop("counters", None)
        assert {x.dtype for x in found.values()} == {dtype}
        channels = image[1]
        assert found["weights"].ndim == 1
        if launched.kernel != "solve":
            assert found["matrices"].shape[1:] == (channels, channels)
            return
        assert found["x"].shape == found["y"].shape == image
        extent = [grid[f"extent_{axis}"] for axis in range(4)]
        assert extent == [1] * (6 - len(image)) + list(image[2:])
        waits = grid["bands"] * extent[0] * extent[1] > 1
        assert (counters is not None) == waits
        if counters is not None:
            assert counters.dtype == torch.int32
            assert counters.shape == (1 + launched.blocks,)


@pytest.fixture
def memory(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> FakeMemory:
    """Have CUDA tensors without memory be launched, and only recorded."""
    driver.runs, found = False, FakeMemory()
    ops = DeviceOps(
        lambda x: (x.device.index or 0) if isinstance(x, FakeTensor) else None,
        found.address,
        lambda x: STREAM,
        devices._contiguous,
    )
    monkeypatch.setattr(solvers, "CUDA", ops)
    return found


@layers
@pytest.mark.parametrize(
    ("dtype", "solved_in"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        pytest.param(torch.float64, torch.float64, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_fake_cuda_tensors_are_launched(
    name: str, dtype: Any, solved_in: Any, torch_layer: Build, driver: Driver, memory: FakeMemory
) -> None:
    layer, x = torch_layer(name, dtype=dtype)
    results = on_cuda(layer, "inverse", x)
    assert {r.device.type for r in results} == {"cuda"}
    kernels = [launched.kernel for launched in driver.launches]
    weighed = [pair for pair in itertools.pairwise(kernels) if "fold" in pair[:1]]
    assert set(weighed) == {("fold", "decide")}
    assert kernels.count("solve") == len(weighed) >= 2  # the inverse, and the gradient's transpose
    for launched in driver.launches:
        memory.check(launched, solved_in, tuple(x.shape))
        assert (launched.device, launched.stream) == (0, STREAM)


def test_channels_last_is_copied_before_a_launch(
    torch_layer: Build, driver: Driver, memory: FakeMemory
) -> None:
    layer, x = torch_layer("autoregressive-2d")
    x = x.to(memory_format=torch.channels_last)

    def fake(t: Any) -> Any:
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda")

    real = layer.state_dict().items()
    with FakeTensorMode(), WithoutDriver(), torch.no_grad():
        state = {f"layer.{name}": fake(t) for name, t in real}
        functional_call(Method(layer, "inverse"), state, fake(x))
    for launched in driver.launches:
        memory.check(launched, x.dtype, tuple(x.shape))
    assert driver.launches


def expected(layer: Any, x: Any) -> list[Any]:
    """Return outputs and gradients by the CPU's own kernel."""
    return gradients(layer.inverse, layer, x)


@layers
def test_values_and_gradients(name: str, torch_layer: Build, request: Any) -> None:
    layer, x = torch_layer(name)
    wanted = expected(layer, x)
    driver = request.getfixturevalue("on_this_processor")
    assert layer.operator().prepare(tuple(x.shape[2:]), check=False).plan is not None
    for got, want in zip(gradients(layer.inverse, layer, x), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    assert [launched.kernel for launched in driver.launches].count("solve") >= 2


@pytest.mark.parametrize(
    "shapes", [checks.SMALL, pytest.param(checks.SHAPES, marks=pytest.mark.slow)]
)
def test_what_a_gpu_must_do(shapes: Any, on_this_processor: Driver) -> None:
    torch._dynamo.reset()
    checks.of_torch("cpu", shapes)
    assert [launched.kernel for launched in on_this_processor.launches].count("solve") >= 8


@pytest.mark.parametrize("planted", ["another solution", "other bits", "no kernel"])
def test_what_a_gpu_did_wrong_is_noticed(
    planted: str, on_this_processor: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = DeviceSolve.__call__
    wrong: dict[str, Any] = {
        "another solution": lambda self, y: right(self, y) + 0.1,
        "other bits": lambda self, y: right(self, y) * (1 + torch.finfo(y.dtype).eps),
        "no kernel": right,
    }
    monkeypatch.setattr(DeviceSolve, "__call__", wrong[planted])
    if planted == "no kernel":
        monkeypatch.setattr(solvers, "device_solve", lambda *_: None)
    with pytest.raises(AssertionError):
        checks.of_torch("cpu", checks.SMALL)


def test_a_prepared_solve_is_one_launch_and_its_plan_says_so(
    on_this_processor: Driver, torch_layer: Build
) -> None:
    layer, x = torch_layer("autoregressive-2d")
    with torch.no_grad():
        prepared = layer.operator().prepare((3, 4), check=False)
        assert prepared.plan["method"] == "CUDA kernel"
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
    assert prepared.plan["method"] == "pitched wavefront"


def test_where_no_row_fits_wavefronts_solve(on_this_processor: Driver, torch_layer: Build) -> None:
    on_this_processor.library.stand_in_attribute(97, 512)  # bytes of shared memory
    layer, x = torch_layer("autoregressive-2d", grid_factor=8)
    with torch.no_grad():
        prepared = layer.operator().prepare(tuple(x.shape[2:]), check=False)
        assert prepared.plan["method"] == "pitched wavefront"
        back = layer.forward(prepared.inverse(x))[0]
    torch.testing.assert_close(back, x)
    assert on_this_processor.launches == []


def test_tensors_in_host_memory_and_fake_ones_are_not_launched() -> None:
    assert devices.CUDA.ordinal(torch.zeros(1)) is None
    with FakeTensorMode():
        assert devices.CUDA.ordinal(torch.empty(1, device="cuda")) is None
