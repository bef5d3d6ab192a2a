"""What is timed on CUDA devices: right on tensors of the CPU, listed for a device without one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, call

import numpy as np
import pytest
import torch
from rich.console import Console

from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks import command
from invconv_benchmarks.contenders import devices, everyone, ours, plain
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.density.evaluation import beside_finc
from invconv_benchmarks.measure import gpu
from invconv_benchmarks.runs.schedule import Plan
from invconv_benchmarks.suites.group import Group
from invconv_benchmarks.suites.groups import select
from invconv_conformance.libraries.table import LIBRARIES, Target
from invconv_conformance.truth import oracle

KNOWN = {library.name: library for library in LIBRARIES}
TORCH = Target(KNOWN["torch"], "cpu")
WAYS: dict[str, Callable[[Setup], Any]] = {
    "finc": devices.finc,
    "wavefront": devices.wavefront,
}


def setup(name: str, shape: tuple[int, ...], target: Target = TORCH) -> Setup:
    does = ("forward", "inverse", "kernel")
    return Setup(Group("inverse", name, shape, does, dtype="float64"), target)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["corner 2", "corner 3"])
@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (3, 6, 7, 2), (1, 5, 1, 4), (2, 1, 3, 3)], ids=str)
def test_each_solves_with_the_dense_matrix(way: str, name: str, shape: tuple[int, ...]) -> None:
    there = setup(name, shape)
    matrix, shift = oracle.affine(there.host, there.grid)
    rows = there.values.reshape(shape[0], -1).astype(np.float64) - shift
    expected = np.linalg.solve(matrix, rows.T).T.reshape(shape)
    solve = WAYS[way](there)
    for _ in range(2):  # the second in the same memory
        np.testing.assert_allclose(to_numpy(solve()), expected, rtol=1e-12, atol=1e-12)


def test_the_rows_of_a_device() -> None:
    """With no device: nothing is built."""
    cupy, jax = Target(KNOWN["cupy"], "cuda:0"), Target(KNOWN["jax"], "cuda:0", "jit")
    targets = [*gpu.with_graphs([Target(KNOWN["torch"], "cuda:0")]), cupy, jax]
    (group,) = (g for g in select("inverse", [], ("float32",), quick=False) if _is_listed(g))
    found = {
        (c.name, c.target.library.name, c.target.mode) for c in everyone.contenders(group, targets)
    }
    for mode in ("eager", "graph"):
        for name in ("kernel", "wavefront", "invconv inverse", plain.CONV2D):
            assert (name, "torch", mode) in found
    assert (devices.FINC, "torch", "eager") in found
    assert (devices.FINC, "torch", "graph") not in found
    assert {("kernel", "cupy", "eager"), ("wavefront", "cupy", "eager")} <= found
    assert {("kernel", "jax", "jit"), ("invconv inverse", "jax", "jit")} <= found
    on_cpu = {c.name for c in everyone.contenders(group, [TORCH])}
    assert not {"kernel", "wavefront", devices.FINC} & on_cpu


def _is_listed(group: Group) -> bool:
    return (group.map, group.shape) == ("corner 2", (100, 12, 32, 32))


class OnCpu(Target):
    """A CUDA device, with memory of this processor: it has no kernel."""

    on_cuda = True


def test_a_kernel_that_does_not_run_is_no_row_of_a_kernel() -> None:
    there = setup("corner 2", (1, 2, 3, 3), OnCpu(KNOWN["torch"], "cpu"))
    (kernel,) = (c for c in ours.contenders(there) if c.name == "kernel")
    with pytest.raises(RuntimeError, match="no CUDA kernel here: compiled kernel"):
        kernel.build()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """Return a stand-in for `torch.cuda`, which takes note of its calls."""
    found = MagicMock()
    for name in ("Event", "device", "Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(found, name))
    return found


def named(device: MagicMock, *names: str) -> list[str]:
    """Return those of its calls that have one of these names, in order."""
    return [call[0] for call in device.mock_calls if call[0] in names]


def test_tensors_on_a_device_are_timed_by_its_events(device: MagicMock) -> None:
    device.Event.return_value.elapsed_time.return_value = 6.0  # milliseconds
    clock = gpu.clock(Target(KNOWN["torch"], "cuda:1"))
    assert clock(device.solve, 3) == pytest.approx(2e-3)
    device.device.assert_called_with("cuda:1")
    assert device.Event.call_args_list == [call(enable_timing=True)] * 2
    record, wait = "Event().record", "Event().synchronize"
    in_turn = [record, *["solve"] * 3, record, wait]
    assert named(device, record, wait, "solve") == in_turn


def test_a_graph_is_captured_once_after_a_call_that_plans(device: MagicMock) -> None:
    x = torch.ones(2)
    run = gpu.GraphTarget(KNOWN["torch"], "cuda:0", "graph").compile(device.solve)
    assert run(x) is run(x) is device.solve.return_value
    in_turn = [
        *("Stream().wait_stream", "solve", "current_stream().wait_stream"),
        *("graph().__enter__", "solve", "graph().__exit__"),
        *("CUDAGraph().replay", "CUDAGraph().replay"),
    ]
    assert named(device, *in_turn) == in_turn


def test_a_run_on_a_device_times_a_whole_flow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(beside_finc, "run", lambda device, *where: asked.append(device))
    plan = Plan("", (), (("torch", "cpu"), ("torch", "cuda:1")), (1,), (), True, 1, 0.1, 1)
    on_cpu = dataclasses.replace(plan, targets=(("torch", "cpu"), ("cupy", "cuda:0")))
    for suite in ("inverse", "all", "forward"):
        for each in (plan, on_cpu):
            command._sample_a_glow(suite, each, tmp_path, Console())
    assert asked == ["cuda:1", "cuda:1"]
