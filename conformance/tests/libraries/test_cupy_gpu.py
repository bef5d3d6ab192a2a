"""The CuPy adapter on a GPU: ``pytest -m gpu``. Not yet run on one; the laws are a command."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import invconv as ic
from tests.selected import CUPY

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def cupy() -> Any:
    """Return CuPy, or skip the module where it cannot run."""
    if reason := CUPY.absent():
        pytest.skip("no GPU" if "no GPU" in reason else reason)
    import cupy

    return cupy


@pytest.fixture
def conv_and_image(cupy: Any) -> tuple[ic.InvertibleConv, Any]:
    """Return an emerging convolution, and a batch for it."""
    x = cupy.asarray(np.random.default_rng(1).standard_normal((4, 12, 16, 16)))
    return ic.EmergingConv.init(12, rng=np.random.default_rng(0), like=x), x


def test_forward_and_inverse_do_not_wait(cupy: Any, conv_and_image: Any) -> None:
    """Both return while the device is busy with what was queued before them."""
    conv, x = conv_and_image
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


def test_streams_do_not_share_buffers(cupy: Any, conv_and_image: Any) -> None:
    conv, x = conv_and_image
    y = conv.forward(x)
    cupy.cuda.Device().synchronize()
    results = []
    for scale in range(1, 9):
        with cupy.cuda.Stream(non_blocking=True) as stream:
            results.append((scale, stream, conv.inverse(scale * y)))
    for scale, stream, back in results:
        stream.synchronize()
        np.testing.assert_allclose(back.get(), scale * x.get(), rtol=1e-9, atol=1e-9)


def test_it_runs_on_the_current_device(cupy: Any) -> None:
    last = cupy.cuda.runtime.getDeviceCount() - 1
    with cupy.cuda.Device(last):
        x = cupy.ones((2, 3, 8, 8))
        conv = ic.EmergingConv.init(3, rng=np.random.default_rng(0), like=x)
        back = conv.inverse(conv.forward(x))
        assert back.device.id == last
        cupy.testing.assert_allclose(back, x, rtol=1e-9)
