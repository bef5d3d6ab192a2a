"""The kernel's launches and CuPy's adapter on a GPU: ``pytest -m gpu``. Not yet run on one.

What is in `checks` has run on the stand-in for the driver (`test_cuda_launch`, `test_cuda_jax`).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
import invconv_torch
from invconv_conformance.libraries import LIBRARIES
from tests.conftest import TORCH_LAYERS
from tests.launches import checks
from tests.programs import python
from tests.selected import CUPY

(JAX,) = [library for library in LIBRARIES if library.name == "jax"]

NO_JAX = JAX.absent() is not None or len(JAX.devices()) == 1
on_torch = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use")
pytestmark = pytest.mark.gpu


def prepared(shape: tuple[int, ...], device: str = "cuda") -> tuple[Any, Any]:
    y = torch.from_numpy(checks.images(shape, "float32")).to(device)
    conv = checks.convolution(shape[1], "float32", len(shape) - 2).asarrays(y)
    inverse = conv.prepare(shape[2:], check=False)
    assert inverse.plan.method == "CUDA kernel"
    return inverse, y


@on_torch
@pytest.mark.parametrize("shape", checks.SHAPES, ids=str)
def test_torch(shape: tuple[int, ...]) -> None:
    checks.of_torch("cuda", [shape])


@contextmanager
def no_waiting() -> Iterator[None]:
    """Have PyTorch raise as soon as anything waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_torch
def test_a_solve_never_waits_and_a_graph_records_it() -> None:
    inverse, y = prepared((2, 12, 40, 40))
    expected = inverse.inverse(y)
    with no_waiting():
        again = inverse.inverse(y)
    assert torch.equal(again, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), no_waiting():
        x = inverse.inverse(y)
    y *= 2
    for _ in range(3):
        graph.replay()
        assert torch.equal(x, 2 * expected)


@on_torch
def test_streams_and_threads_do_not_share_counters() -> None:
    """Solves of a few long images, whose bands wait for each other, beside each other."""
    inverse, y = prepared((1, 12, 512, 64))
    expected, streams = inverse.inverse(y), [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()

    def solve(stream: Any) -> list[Any]:
        with torch.cuda.stream(stream):
            found = [inverse.inverse(y) for _ in range(20)]
            stream.synchronize()
        return found

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(solve, streams)
    assert all(torch.equal(x, expected) for x in one + two)


def steps(layer: Any, x: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what training and sampling do with a layer, second derivatives and eval mode too."""

    def loss(run: Any) -> Any:
        y, log_det = run(x)
        return y.square().sum() + log_det.sum()

    def once(run: Any) -> None:
        loss(run).backward()

    def twice(run: Any) -> None:
        leaves = [x, *layer.parameters()]
        first = torch.autograd.grad(loss(run), leaves, create_graph=True, materialize_grads=True)
        sum(g.square().sum() for g in first).backward()

    for run in (layer.forward, layer.inverse):
        yield f"{run.__name__} and backward", partial(once, run)
        yield f"second derivative of {run.__name__}", partial(twice, run)
    layer.eval()
    for again in ("", " again"):
        yield f"inverse in eval mode{again}", torch.no_grad()(lambda: layer.inverse(x))
    yield "inverse in eval mode and backward", partial(once, layer.inverse)


@on_torch
@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_no_step_of_a_layer_waits(name: str) -> None:
    kind, arguments, settings, grid = TORCH_LAYERS[name]
    layer: Any = getattr(invconv_torch, kind)(*arguments, **settings, device="cuda")
    x = torch.randn(2, arguments[0], *grid, device="cuda", requires_grad=True)
    for _, step in steps(layer, x):
        step()  # compiles, and copies constants
    layer.train()
    torch.cuda.synchronize()
    for what, step in steps(layer, x):
        if name.startswith("exponential") and what == "inverse in eval mode":
            step()  # counts terms
            continue
        with no_waiting():
            step()


@on_torch
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one() -> None:
    checks.of_torch("cuda:1", checks.SMALL)
    assert torch.cuda.current_device() == 0


@pytest.fixture(scope="module")
def cupy() -> Any:
    if reason := CUPY.absent():
        pytest.skip("no GPU" if "no GPU" in reason else reason)
    import cupy

    return cupy


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("shape", checks.SHAPES, ids=str)
def test_cupy(shape: tuple[int, ...]) -> None:
    checks.of_cupy([shape])


def test_cupys_streams_share_no_counters_and_no_buffers(cupy: Any) -> None:
    host, values = checks.convolution(12, "float32", 2), checks.images((1, 12, 512, 64), "float32")
    y = cupy.asarray(values)
    solve = host.asarrays(y).prepare((512, 64), check=False)._state.solve
    expected = solve(y)
    cupy.cuda.Device().synchronize()
    streams, found = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)], []
    for i in range(20):
        for stream in streams:
            with stream:
                found.append(solve(2.0**i * y))
    for stream in streams:
        stream.synchronize()
    for i, x in enumerate(found):
        cupy.testing.assert_array_equal(x, 2.0 ** (i // 2) * expected)


ON_JAX = """
import sys, threading, jax, numpy as np
jax.config.update("jax_enable_x64", True)
from tests.launches import checks
assert jax.devices()[0].platform == "gpu", jax.devices()
checks.of_jax()
host, values = checks.convolution(12, "float32", 2), checks.images((1, 12, 512, 64), "float32")
y = jax.numpy.asarray(values)
run, conv, found = jax.jit(lambda conv, y: conv.inverse(y)), host.asarrays(y), []
threads = [threading.Thread(target=lambda: found.extend(run(conv, y) for _ in range(20)))
           for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 40
for x in found: np.testing.assert_array_equal(x, host.inverse(values))
"""


@pytest.mark.skipif(NO_JAX, reason="no GPU that JAX can use")
def test_jax() -> None:
    """In a process of its own: JAX's float64 and memory are the process's."""
    python("-c", ON_JAX, XLA_PYTHON_CLIENT_PREALLOCATE="false")


def test_forward_and_inverse_do_not_wait(cupy: Any) -> None:
    """Both return while the device is busy with what was queued before them."""
    x = cupy.asarray(np.random.default_rng(1).standard_normal((4, 12, 16, 16)))
    conv = ic.EmergingConv.init(12, rng=np.random.default_rng(0), like=x)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        a, product = cupy.ones((2, 8192, 8192), dtype=cupy.float32)
        expected = conv.inverse(conv.forward(x))  # compiles, and fills the pool of memory
        stream.synchronize()
        for _ in range(50):  # half a second on the fastest
            cupy.matmul(a, a, out=product)
        back = conv.inverse(conv.forward(x))
        assert not stream.done
    stream.synchronize()
    cupy.testing.assert_array_equal(back, expected)
