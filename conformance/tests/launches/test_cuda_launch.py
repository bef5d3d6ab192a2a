"""The core's launcher: NumPy's arrays are the device's memory, a stand-in is the driver."""

from __future__ import annotations

import ctypes.util
import dataclasses
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.kernels.cpu.compiled import address_of, available, compiled_solve
from invconv.kernels.cuda import compile as compiler
from invconv.kernels.cuda import driver as cuda_driver
from invconv.kernels.cuda import launch
from invconv.kernels.cuda.compile import Code, compile_text
from invconv.kernels.cuda.launch import DeviceOps, DeviceSolve, device_solve
from invconv.kernels.cuda.plan import Plan
from invconv_conformance.truth import oracle
from tests.launches.stand_in_driver import STREAM, Driver

Floats = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


def address(x: Floats) -> int:
    return int(x.ctypes.data)


MEMORY = DeviceOps(lambda x: 1, address, lambda x: STREAM, np.ascontiguousarray)


def factored(conv: ic.AutoregressiveConv, grid: tuple[int, ...]) -> DeviceSolve:
    c = conv._causal()
    stencil = c.reach, c.direction, c.dilation, c.lower
    found = device_solve(np.concatenate([c.diagonal[None], c.taps]), grid, *stencil, MEMORY)
    assert found is not None
    return found


def convolution(dtype: str = "float32", **settings: Any) -> ic.AutoregressiveConv:
    given: dict[str, Any] = {"rng": RNG, "like": np.zeros((), dtype)} | settings
    conv: ic.AutoregressiveConv = ic.AutoregressiveConv.init(3, **given)
    return conv


def images(*shape: int, dtype: str = "float32") -> Floats:
    return RNG.standard_normal(shape).astype(dtype)


def check(conv: ic.AutoregressiveConv, y: Floats, x: Floats) -> None:
    """Compare with the definition, and with the CPU's kernel bit for bit."""
    matrix, _ = oracle.affine(conv, y.shape[2:])
    wanted = np.linalg.solve(matrix, y.reshape(len(y), -1).T.astype(float)).T.reshape(y.shape)
    assert np.abs(x - wanted).max() <= 50 * np.finfo(y.dtype).eps * np.abs(wanted).max()
    if available(y.itemsize):
        c, expected = conv._causal(), np.empty_like(y)
        matrices = np.concatenate([c.diagonal[None], c.taps])
        state = compiled_solve(matrices, y.shape[2:], c.reach, c.direction, c.dilation, c.lower)
        state.solve(address_of(y), address_of(expected), len(y), 1, y, expected)
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_launched_solves(driver: Driver, dtype: str) -> None:
    conv, y = convolution(dtype, direction=(1, -1)), images(2, 3, 5, 7, dtype=dtype)
    solve = factored(conv, (5, 7))
    x = solve(y)
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    check(conv, y, x)
    fold, decide, solved = driver.launches
    names = [launched.kernel for launched in driver.launches]
    assert names == ["fold", "decide", "solve"]
    assert {launched.stream for launched in driver.launches} == {STREAM}
    assert {launched.device for launched in driver.launches} == {1}
    assert fold.pointers == decide.pointers
    assert fold.pointers["weights"] == address(solve.weights) == solved.pointers["weights"]
    assert solved.pointers == {
        "y": address(y),
        "x": address(x),
        "weights": address(solve.weights),
        "counters": 0,
    }
    assert (solved.blocks, solved.grid["images"], solved.grid["bands"]) == (2, 2, 1)
    steps = [solved.grid[f"step_{axis}"] for axis in range(4)]
    assert steps == [35, 35, 7, -1]


def test_bands_follow_each_other_by_counters(driver: Driver) -> None:
    conv, y = convolution(), images(1, 3, 40, 6)
    solve = factored(conv, (40, 6))
    for _ in range(2):  # whose counters are zero again
        check(conv, y, solve(y))
    solved = driver.launches[-1]
    assert solved.grid["bands"] == solved.blocks > 1
    assert solved.pointers["counters"] != 0


def test_a_launch_may_have_more_shared_memory_than_other_kernels_have(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, y = convolution(), images(1, 3, 8, 140)
    solve = factored(conv, (8, 140))
    check(conv, y, solve(y))
    assert 48 * 1024 < driver.launches[-1].shared <= 227 * 1024
    launch.program_of.cache_clear()
    launch._loaded.cache_clear()
    monkeypatch.setattr(cuda_driver, "allow_shared", lambda *_: None)
    with pytest.raises(cuda_driver.DriverError, match="cuLaunchKernel failed: invalid argument"):
        factored(conv, (8, 140))(y)


def test_a_graph_records_what_was_not_compiled_before(driver: Driver) -> None:
    conv, y = convolution(), images(2, 3, 5, 7)
    driver.library.stand_in_capture(True)
    check(conv, y, factored(conv, (5, 7))(y))
    assert [launched.kernel for launched in driver.launches] == ["fold", "decide", "solve"]


def test_more_images_than_a_launch_may_have_are_several(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, y = convolution(), images(5, 3, 5, 7)
    solve = factored(conv, (5, 7))
    assert solve.program.plan.most_images == (2**31 - 2) // 5
    monkeypatch.setattr(Plan, "most_images", 2)
    check(conv, y, solve(y))
    solved = [launched.grid["images"] for launched in driver.launches if launched.kernel == "solve"]
    assert solved == [2, 2, 1]


def test_each_device_has_its_own_plan_and_shared_memory(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has few processors; both have the code that was compiled once."""
    known, described = [launch._described(n) for n in (0, 1)], launch._described
    assert known[0] == known[1]
    few = dataclasses.replace(known[1], processors=1)
    monkeypatch.setattr(launch, "_described", lambda n: few if n else described(n))
    conv, y = convolution(), images(1, 3, 20, 70)
    for ordinal in (0, 1):
        monkeypatch.setattr(sys.modules[__name__], "MEMORY", on_device(ordinal))
        check(conv, y, factored(conv, (20, 70))(y))
    first, second = (found for found in driver.launches if found.kernel == "solve")
    assert (first.device, second.device) == (0, 1)
    assert second.shared > 48 * 1024
    assert first.grid["bands"] > second.grid["bands"]
    assert launch._loaded.cache_info().misses == 1


def on_device(ordinal: int) -> DeviceOps:
    return DeviceOps(**(vars(MEMORY) | {"ordinal": lambda x: ordinal}))


def test_a_thread_without_a_context_launches(driver: Driver) -> None:
    conv, y = convolution(), images(2, 3, 5, 7)
    solve, found = factored(conv, (5, 7)), []
    thread = threading.Thread(target=lambda: found.append(solve(y)))
    thread.start()
    thread.join()
    check(conv, y, found[0])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((2, 3, 5, 7)), "got (3, 5, 7) of float64 on cpu"),
        (np.zeros((2, 3, 7, 5), "float32"), "got (3, 7, 5) of float32 on cpu"),
        (np.zeros((2, 2, 5, 7), "float32"), "got (2, 5, 7) of float32 on cpu"),
    ],
    ids=["dtype", "grid", "channels"],
)
def test_other_images_than_the_kernel_reads_are_refused(
    driver: Driver, y: Floats, message: str
) -> None:
    solve = factored(convolution(), (5, 7))
    with pytest.raises(ValueError, match="expected images") as caught:
        solve(y)
    assert message in str(caught.value)
    assert len(driver.launches) == 2


def test_an_empty_batch_is_not_launched(driver: Driver) -> None:
    assert factored(convolution(), (5, 7))(images(0, 3, 5, 7)).shape == (0, 3, 5, 7)
    assert len(driver.launches) == 2


def not_loaded(*_: Any, **__: Any) -> Code:
    return Code(b"/dev/null", "")


ABSENT: dict[str, tuple[dict[str, Any], str]] = {
    "no driver": ({"NAMES": ("libabsent.so.1",)}, "the CUDA driver was not found"),
    "an old driver": ({"NAMES": (ctypes.util.find_library("c"),)}, "the CUDA driver has no cu"),
    "no compiler": (
        {"library": lambda newest: None, "compile_text": compile_text},
        "NVRTC of CUDA 12 or before was not found",
    ),
    "another kind": ({"compile_text": not_loaded}, "cuLibraryLoadData failed: invalid argument"),
}


@pytest.mark.parametrize("why", ABSENT)
def test_where_nothing_can_be_launched_one_warning_says_why(
    driver: Driver, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, words = ABSENT[why]
    for name, value in changes.items():
        monkeypatch.setattr(cuda_driver if name == "NAMES" else compiler, name, value)
    c = convolution()._causal()
    matrices = np.concatenate([c.diagonal[None], c.taps])
    stencil = (5, 7), c.reach, c.direction, c.dilation, c.lower

    def require_no_solve() -> None:
        assert device_solve(matrices, *stencil, MEMORY) is None

    with pytest.warns(RuntimeWarning, match=f"no CUDA kernel, wavefronts solve: {words}"):
        require_no_solve()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_no_solve()


def test_other_numbers_have_no_kernel(driver: Driver) -> None:
    c = convolution()._causal()
    stencil = (5, 7), c.reach, c.direction, c.dilation, c.lower
    for dtype in ("float16", "complex64", "int32"):
        matrices = np.concatenate([c.diagonal[None], c.taps]).astype(dtype)
        assert device_solve(matrices, *stencil, MEMORY) is None
    elsewhere = DeviceOps(**(vars(MEMORY) | {"ordinal": lambda x: None}))
    assert device_solve(matrices, *stencil, elsewhere) is None
    assert driver.launches == []
