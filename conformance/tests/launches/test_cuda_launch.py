"""The core's launcher: NumPy's arrays are the device's memory, a stand-in is the driver."""

from __future__ import annotations

import ctypes.util
import threading
import warnings
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.kernels.cuda import compile as compiler
from invconv.kernels.cuda import driver as cuda_driver
from invconv.kernels.cuda import launch
from invconv.kernels.cuda.compile import Code, compile_text
from invconv.kernels.cuda.launch import DeviceOps, DeviceSolve, device_solve
from invconv.kernels.cuda.plan import Plan
from tests.launches.checks import Floats, check, images
from tests.launches.stand_in_driver import STREAM, Driver

RNG = np.random.default_rng(0)


def address(x: Floats) -> int:
    return int(x.ctypes.data)


MEMORY = DeviceOps(lambda x: 1, address, lambda x: STREAM, np.ascontiguousarray)


def factored(conv: ic.AutoregressiveConv, grid: tuple[int, ...]) -> DeviceSolve:
    c = conv._causal()
    found = device_solve(np.concatenate([c.diagonal[None], c.taps]), c.on(grid), MEMORY)
    assert found is not None
    return found


def convolution(dtype: str = "float32") -> ic.AutoregressiveConv:
    return ic.AutoregressiveConv.init(3, direction=(1, -1), rng=RNG, like=np.zeros((), dtype))


def solve_and_check(shape: tuple[int, ...], dtype: str = "float32") -> DeviceSolve:
    """Solve images twice: counters are zero again after a solve."""
    conv, y = convolution(dtype), images(shape, dtype)
    solve = factored(conv, shape[2:])
    for _ in range(2):
        check(conv, y, solve(y))
    return solve


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_launched_solves(driver: Driver, dtype: str) -> None:
    solve_and_check((2, 3, 5, 7), dtype)
    assert [launched.kernel for launched in driver.launches] == ["fold", "decide", "solve", "solve"]
    assert {(launched.device, launched.stream) for launched in driver.launches} == {(1, STREAM)}


def test_bands_follow_each_other_by_counters(driver: Driver) -> None:
    solve_and_check((1, 3, 40, 6))
    solved = driver.launches[-1]
    assert solved.grid["bands"] == solved.blocks > 1
    assert solved.pointers["counters"] != 0


def test_a_launch_may_have_more_shared_memory_than_other_kernels_have(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve_and_check((1, 3, 8, 140))
    assert 48 * 1024 < driver.launches[-1].shared <= 227 * 1024
    launch.program_of.cache_clear()
    launch._loaded.cache_clear()
    monkeypatch.setattr(cuda_driver, "allow_shared", lambda *_: None)
    with pytest.raises(cuda_driver.DriverError, match="cuLaunchKernel failed: invalid argument"):
        solve_and_check((1, 3, 8, 140))


def test_a_graph_records_what_was_not_compiled_before(driver: Driver) -> None:
    driver.library.stand_in_capture(True)
    solve_and_check((2, 3, 5, 7))


def test_more_images_than_a_launch_may_have_are_several(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert factored(convolution(), (5, 7)).program.plan.most_images == (2**31 - 2) // 5
    monkeypatch.setattr(Plan, "most_images", 2)
    solve_and_check((5, 3, 5, 7))
    assert [n.grid["images"] for n in driver.launches if n.kernel == "solve"] == 2 * [2, 2, 1]


def test_a_thread_without_a_context_launches(driver: Driver) -> None:
    conv, y = convolution(), images((2, 3, 5, 7), "float32")
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
    assert factored(convolution(), (5, 7))(images((0, 3, 5, 7), "float32")).shape == (0, 3, 5, 7)
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

    def require_no_solve() -> None:
        assert device_solve(matrices, c.on((5, 7)), MEMORY) is None

    with pytest.warns(RuntimeWarning, match=f"no CUDA kernel, wavefronts solve: {words}"):
        require_no_solve()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_no_solve()
