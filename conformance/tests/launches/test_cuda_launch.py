"""Launches on the stand-in for the driver: the core's on NumPy's memory, PyTorch's, CuPy's."""

import ctypes.util
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import invconv as ic
from invconv.kernels.cuda import compile as compiler
from invconv.kernels.cuda import driver as cuda_driver
from invconv.kernels.cuda import launch
from invconv.kernels.cuda.compile import DeviceCode, compile_text
from invconv.kernels.cuda.launch import DeviceOps, DeviceSolve, device_solve
from invconv.kernels.cuda.plan import LaunchPlan
from invconv_conformance.cases.table import skewed
from invconv_conformance.cuda import solves
from invconv_torch.native import kernels
from tests.call_frames import UPPER, Frames
from tests.launches import checks
from tests.launches.checks import check, images
from tests.launches.stand_in_driver import STREAM, Driver
from tests.libraries.stand_in_cupy import runner
from tests.selected import slow

RNG = np.random.default_rng(0)
MEMORY = DeviceOps(lambda x: 1, lambda x: x.ctypes.data, lambda x: STREAM, np.ascontiguousarray)


def factored(conv: ic.AutoregressiveConv, grid: tuple[int, ...]) -> DeviceSolve:
    c = conv._causal()
    found = device_solve(c.taps, c.sweep.on(grid), MEMORY)
    assert found is not None
    return found


def convolution(dtype: str = "float32") -> ic.AutoregressiveConv:
    return ic.AutoregressiveConv.init(3, direction=(1, -1), rng=RNG, like=np.zeros((), dtype))


def solve_and_check(shape: tuple[int, ...], dtype: str = "float32", conv: Any = None) -> None:
    """Solve images twice: counters are zero again after a solve."""
    conv, y = conv or convolution(dtype), images(shape, dtype)
    solve = factored(conv, shape[2:])
    for _ in range(2):
        check(conv, y, solve(y))


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_launched_solves(driver: Driver, dtype: str, captured: bool) -> None:
    driver.library.stand_in_capture(captured)
    solve_and_check((2, 3, 5, 7), dtype)
    assert [launched.kernel for launched in driver.launches] == ["fold", "decide", "solve", "solve"]
    assert {(launched.device, launched.stream) for launched in driver.launches} == {(1, STREAM)}


STENCILS: tuple[tuple[int, tuple[int, ...], int, dict[str, Any]], ...] = (  # bytes of shared memory
    (3, (7, 6), 99, {"kernel_size": (3, 2), "mask": "raster", "dilation": (2, 1), "direction": -1}),
    (5, (5, 8), 99, {"kernel_size": (2, 3), "dilation": (1, 3), "direction": (-1, 1)}),
    (2, (3, 4, 5), 99, {"kernel_size": (2, 2, 2), "mask": "raster", "dilation": (1, 2, 3)}),
    (2, (4, 2, 3, 5), 99, {"kernel_size": (3, 2, 2, 2), "direction": (1, -1, -1, 1)}),
    (9, (4, 30), 2, {"kernel_size": (2, 2), "dilation": (3, 2), "direction": (1, -1)}),  # turned
    (1, (90,), 1, {"kernel_size": (4,), "dilation": (5,), "direction": (-1,)}),
)


@pytest.mark.parametrize("skew", [0.0, 2.0])
@pytest.mark.parametrize("order", ["lower", slow("upper")])
@pytest.mark.parametrize("setting", STENCILS)
def test_any_stencil_has_the_bits_of_the_cpu(
    setting: Any, order: str, skew: float, driver: Driver
) -> None:
    channels, grid, kib, given = setting
    driver.library.stand_in_attribute(97, 1024 * kib)
    given = {"mask": "corner", "direction": 1, "dilation": 1, "channel_order": order} | given
    conv = solves.drawn(np.random.default_rng(1), channels, len(grid), **given)
    solve_and_check((3, channels, *grid), "float64", skewed(conv, skew))


def test_a_launch_may_have_more_shared_memory(driver: Driver, monkeypatch: Any) -> None:
    solve_and_check((1, 3, 8, 170))
    assert 48 * 1024 < driver.launches[-1].shared <= 227 * 1024
    launch.program_of.cache_clear()
    launch._loaded.cache_clear()
    monkeypatch.setattr(cuda_driver, "allow_shared", lambda *_: None)
    with pytest.raises(cuda_driver.DriverError, match="cuLaunchKernel failed: invalid argument"):
        solve_and_check((1, 3, 8, 170))


def test_xlas_call_frame(driver: Driver) -> None:
    frames, said, refused, stream = Frames(), list[Any](), None, STREAM
    function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))

    def fail(words: Any) -> int:
        said.append((words[0], words[1], ctypes.string_at(words[2]).decode(), words[3]))
        return 1234

    def give_stream(words: Any) -> int | None:
        assert tuple(words[:3]) == (32, 0, 55)
        words[3] = stream
        return refused

    functions = function(fail), function(give_stream)
    asked = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions]
    version = 3 | 9 << 32
    api = frames.record({4: version, 6: asked[0], 10: asked[1]})
    conv, y = convolution(), images((1, 3, 40, 6), "float32")
    program, taps = factored(conv, (40, 6)).program, np.ascontiguousarray(conv._causal().taps)
    weights, x = np.full(program.plan.weights, np.nan, "float32"), np.empty_like(y)
    weigh = launch.custom_call(program, "weigh", program.plan.weigh())
    solve = launch.custom_call(program, "solve", (program.plan.solve(1),))
    counters = np.full(solve.counters, 77, np.int32)
    older = replace(program.plan, device=replace(program.plan.device, architecture=80))
    other = launch.custom_call(replace(program, plan=older), "solve", (program.plan.solve(1),))
    assert other.name != solve.name  # code of another architecture

    def call(one: Any, given: Any, made: Any, launches: Any = None, *, stage: int = 3) -> Any:
        rows = one.launches if launches is None else launches
        return frames.call(one.code, given, made, [rows], api=api, context=55, stage=stage)

    calls = (weigh, [taps], [weights]), (solve, [weights, y], [x, counters])
    for one in calls:
        before = len(driver.launches)
        assert call(*one, stage=2) is None
        assert len(driver.launches) == before  # XLA prepares, and executes nothing yet
        assert call(*one) is None
    solved = driver.launches[-1]
    assert solved.stream == STREAM
    assert solved.grid["bands"] == solved.blocks > 1
    assert solved.pointers["counters"] == counters.ctypes.data
    check(conv, y, x)
    wrong = np.where(np.arange(solve.launches.size) == 1, 33, solve.launches)  # threads of a block
    assert call(*calls[1], wrong) == 1234
    stream = 0  # of which the driver knows no context: none is taken away
    with cuda_driver.current(0):
        assert call(*calls[1]) == 1234
        assert driver.library.stand_in_contexts() == 1
    message = "invconv: the CUDA driver refuses a launch, error "
    assert said == [(32, 0, message + code, 13) for code in ("001", "900")]
    refused = 4321
    assert call(*calls[1]) == refused
    metadata = frames.record({})
    asks = frames.record({1: 1 | UPPER, 3: metadata})
    assert frames.run(solve.code, {1: asks, 2: api, 4: 3}) is None
    assert frames.kept[-3][:5] == [0, 0, 0, version, 1]  # a graph may record it


def test_more_images_than_a_launch_may_have_are_several(driver: Driver, monkeypatch: Any) -> None:
    assert factored(convolution(), (5, 7)).program.plan.most_images == (2**31 - 2) // 5
    monkeypatch.setattr(LaunchPlan, "most_images", 2)
    solve_and_check((5, 3, 5, 7))
    assert [n.grid["images"] for n in driver.launches if n.kernel == "solve"] == 2 * [2, 2, 1]


def test_a_thread_without_a_context_launches(driver: Driver) -> None:
    conv, y = convolution(), images((2, 3, 5, 7), "float32")
    with ThreadPoolExecutor(1) as pool:
        check(conv, y, pool.submit(factored(conv, (5, 7)), y).result())


def test_threads_load_code_once(driver: Driver, monkeypatch: Any) -> None:
    def late(*given: Any, **options: Any) -> DeviceCode:
        time.sleep(0.05)
        return driver._compile(*given, **options)

    monkeypatch.setattr(compiler, "compile_text", late)
    conv, grids = convolution(), ((5, 7), (6, 7))  # of the same constants
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda grid: factored(conv, grid).program.kernels, grids)
    assert one == two


def test_other_images_are_refused_and_none_are_not_launched(driver: Driver) -> None:
    solve = factored(convolution(), (5, 7))
    for shape, dtype in (((3, 5, 7), "float64"), ((3, 7, 5), "float32"), ((2, 5, 7), "float32")):
        message = re.escape(f"got {shape} of {dtype} on cpu")
        with pytest.raises(ValueError, match=f"expected images .*{message}"):
            solve(np.zeros((2, *shape), dtype))
    assert solve(images((0, 3, 5, 7), "float32")).shape == (0, 3, 5, 7)
    assert len(driver.launches) == 2  # of the weights


EMPTY = DeviceCode(b"/dev/null", "")
ABSENT: dict[str, tuple[dict[str, Any], str]] = {
    "no driver": ({"NAMES": ("libabsent.so.1",)}, "the CUDA driver was not found"),
    "an old driver": ({"NAMES": (ctypes.util.find_library("c"),)}, "the CUDA driver has no cu"),
    "no compiler": ({"library": lambda _: None, "compile_text": compile_text}, "NVRTC of CUDA 12 "),
    "another kind": ({"compile_text": lambda *_, **__: EMPTY}, "cuLibraryLoadData failed: invalid"),
}


@pytest.mark.parametrize("why", ABSENT)
def test_one_warning_says_why_none_is_launched(driver: Driver, why: str, monkeypatch: Any) -> None:
    changes, words = ABSENT[why]
    for name, value in changes.items():
        monkeypatch.setattr(cuda_driver if name == "NAMES" else compiler, name, value)
    c = convolution()._causal()

    def require_no_solve() -> None:
        assert device_solve(c.taps, c.sweep.on((5, 7)), MEMORY) is None

    with pytest.warns(RuntimeWarning, match=f"no CUDA kernel, wavefronts solve: {words}"):
        require_no_solve()
    require_no_solve()


pytestmark = [pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")]


@pytest.mark.parametrize("shapes", [checks.SMALL, slow(checks.SHAPES)])
def test_what_torch_must_do_on_a_gpu(shapes: Any, on_this_processor: Driver) -> None:
    torch._dynamo.reset()
    checks.of_torch("cpu", shapes)
    assert [launched.kernel for launched in on_this_processor.launches].count("solve") >= 8


def test_a_prepared_solve_is_one_launch(on_this_processor: Driver, torch_layer: Any) -> None:
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


def test_where_no_row_fits_wavefronts_solve(on_this_processor: Driver, torch_layer: Any) -> None:
    on_this_processor.library.stand_in_attribute(97, 512)  # bytes of shared memory
    layer, x = torch_layer("autoregressive-2d", grid_factor=8)
    with torch.no_grad():
        prepared = layer.operator().prepare(tuple(x.shape[2:]), check=False)
        assert prepared.plan.method == "pitched wavefront"
        back = layer.forward(prepared.inverse(x))[0]
    torch.testing.assert_close(back, x)
    assert on_this_processor.launches == []


def test_tensors_in_host_memory_fake_ones_and_those_of_amd_are_not_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert kernels.CUDA.ordinal(torch.zeros(1)) is None
    with FakeTensorMode():
        there = torch.empty(1, device="cuda:3")
        assert kernels.CUDA.ordinal(there) is None
    monkeypatch.setattr(kernels, "bare", lambda x: True)
    for version, wanted in (("13.0", 3), (None, None)):  # AMD's devices are "cuda", too
        monkeypatch.setattr(torch.version, "cuda", version)
        assert kernels.CUDA.ordinal(there) == wanted
        assert kernels.CUDA.ordinal(torch.zeros(1)) is None


PROGRAM = """\
import sys
from pathlib import Path
from tests.launches.stand_in_driver import STREAM, Driver
driver = Driver(Path(sys.argv[1])).install()
from tests.launches import checks
checks.of_cupy(checks.SMALL)
solves = [launch for launch in driver.launches if launch.kernel == "solve"]
assert {(n.device, n.stream, n.grid["images"]) for n in solves} == {(0, STREAM, 4)}, solves
"""


def test_what_cupy_must_do_on_a_gpu(tmp_path: Path, compiled_kernels: Path) -> None:
    runner(tmp_path, STAND_IN_DRIVER="1")("-c", PROGRAM, compiled_kernels)
