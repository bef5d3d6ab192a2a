"""The kernel's launches on a GPU, by PyTorch and CuPy: ``pytest -m gpu``. Not yet run on one."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from tests.libraries.gpus import CUPY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use"),
]

SHAPES = ((2, 3, 5, 7), (1, 12, 64, 64), (3, 48, 16, 16), (2, 2, 3, 5, 4))


def convolution(
    channels: int, dtype: str, ndim: int = 2, skew: float = 0.0
) -> ic.AutoregressiveConv:
    """Return an operator of NumPy; if it is skewed, D^-1 is not folded into its weights."""
    rng, like = np.random.default_rng(0), np.zeros((), dtype)
    conv: Any = ic.AutoregressiveConv.init(channels, ndim=ndim, rng=rng, like=like)
    kernel = np.array(conv.kernel)
    kernel[(slice(None), slice(None), *conv._family.centre)] += skew * np.tri(channels, k=-1)
    found: ic.AutoregressiveConv = conv.replace(kernel=kernel.astype(dtype))
    return found


def prepared(conv: ic.AutoregressiveConv, grid: tuple[int, ...]) -> ic.PreparedInverse:
    there = conv.asarrays(
        torch.zeros((), device="cuda", dtype=getattr(torch, str(conv.kernel.dtype)))
    )
    found = there.prepare(grid, check=False)
    assert found.plan["method"] == "CUDA kernel"
    return found


def images(shape: tuple[int, ...], dtype: str) -> tuple[Any, Any]:
    y = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    return y, torch.from_numpy(y).cuda()


@pytest.mark.parametrize("skew", [0.0, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_cpus_numbers_bit_for_bit(shape: tuple[int, ...], dtype: str, skew: float) -> None:
    conv, (y, there) = convolution(shape[1], dtype, len(shape) - 2, skew), images(shape, dtype)
    solver = conv.prepare(shape[2:], check=False)
    if solver.plan["method"] != "compiled kernel":
        pytest.skip("no kernel of the CPU to compare with")
    x = prepared(conv, shape[2:])._state.solve(there)
    np.testing.assert_array_equal(x.cpu().numpy(), solver._state.solve(y))


def test_a_solve_never_waits_and_a_graph_records_it() -> None:
    conv, (_, y) = convolution(12, "float32"), images((2, 12, 40, 40), "float32")
    inverse = prepared(conv, (40, 40))
    expected = inverse.inverse(y)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                x = inverse.inverse(y)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    y *= 2
    for _ in range(3):
        graph.replay()
        assert torch.equal(x, 2 * expected)


def test_another_thread_and_another_stream() -> None:
    conv, (_, y) = convolution(12, "float32"), images((2, 12, 16, 16), "float32")
    inverse, found = prepared(conv, (16, 16)), []
    expected = inverse.inverse(y)
    torch.cuda.synchronize()

    def solve() -> None:
        with torch.cuda.stream(torch.cuda.Stream()) as _:
            found.append(inverse.inverse(y))
            torch.cuda.current_stream().synchronize()

    thread = threading.Thread(target=solve)
    thread.start()
    thread.join()
    assert torch.equal(found[0], expected)


@pytest.mark.skipif(CUPY.absent() is not None, reason="no GPU that CuPy can use")
def test_cupys_numbers_are_pytorchs() -> None:
    import cupy

    conv, (y, there) = convolution(12, "float32"), images((2, 12, 16, 16), "float32")
    solver = conv.asarrays(cupy.zeros((), "float32")).prepare((16, 16), check=False)
    assert solver.plan["method"] == "CUDA kernel"
    expected = prepared(conv, (16, 16))._state.solve(there).cpu().numpy()
    np.testing.assert_array_equal(solver._state.solve(cupy.asarray(y)).get(), expected)
