"""What is in the lanes of a solve, in buffers of any size, and parts of a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import invconv as ic
from invconv.kernels.cpu import assembly, compiled
from invconv.kernels.cpu.lanes import images, strips
from tests.kernels.test_kernels import factored, solved


@pytest.fixture
def forgetting() -> Iterator[None]:
    """Forget the programs that a test has made, which no other is to find."""
    yield
    for remembered in (assembly.program, assembly.costs, compiled._runs):
        remembered.cache_clear()


@pytest.mark.usefixtures("forgetting")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", ["images", "rows"])
def test_buffers_of_any_size(way: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a processor's cache holds: the bits are the same, and x is what y was made of."""
    rng, grid = np.random.default_rng(0), (40, 140)
    conv = ic.AutoregressiveConv.init(5, (3, 2), direction=(1, -1), rng=rng)
    x = rng.standard_normal((2, 5, *grid)).astype(dtype)
    y = conv.asarrays(like=x).forward(x)
    monkeypatch.setattr(compiled, "best_way", lambda *_: way)
    found, parts = [], []
    for size in (2**14, 2**18, 2**19):
        for module in (images, strips):
            monkeypatch.setattr(module, "BAND", size)
        for remembered in (assembly.program, compiled._runs):
            remembered.cache_clear()
        state = factored(conv, grid, dtype)
        found.append(solved(state, y))
        parts.append(assembly.program(state.geometry, way, False).header.segments)
    assert parts[0] > parts[1] >= parts[2]
    assert all(np.array_equal(found[0], other) for other in found[1:])
    np.testing.assert_allclose(found[0], x, atol=300 * float(np.finfo(dtype).eps))
