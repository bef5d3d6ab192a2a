"""The compiled solve on PyTorch against the agnostic wavefronts, over random settings."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from invconv.arrays.registry import agnostic


def random_operator(rng: np.random.Generator) -> tuple[ic.AutoregressiveConv, tuple[int, ...]]:
    ndim = int(rng.integers(1, 4))
    mask = str(rng.choice(["corner", "raster"]))
    direction = rng.choice([-1, 1], ndim)
    conv = ic.AutoregressiveConv.init(
        int(rng.integers(1, 4)),
        tuple(int(k) for k in rng.integers(1, 4, ndim)),
        ndim,
        mask=mask,
        direction=int(direction[0]) if mask == "raster" else tuple(map(int, direction)),
        channel_order=str(rng.choice(["lower", "upper"])),
        dilation=tuple(int(d) for d in rng.integers(1, 4, ndim)),
        rng=rng,
    )
    moved = 0.1 * rng.standard_normal(conv.kernel.shape)
    return conv.replace(kernel=conv.kernel + moved), tuple(map(int, rng.integers(1, 8, ndim)))


@pytest.mark.parametrize("seed", range(120))
def test_equals_the_agnostic_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    host, grid = random_operator(rng)
    y = torch.as_tensor(rng.standard_normal((int(rng.integers(1, 4)), host.channels, *grid)))
    conv = host.asarrays(y)
    with agnostic():
        expected = conv.inverse(y)
    prepared = conv.prepare(grid)
    assert prepared.plan["method"] == "compiled kernel"
    scale = float(expected.abs().max()) * 1e-12
    torch.testing.assert_close(prepared.inverse(y), expected, rtol=0, atol=scale)
    with torch.inference_mode():
        assert torch.equal(prepared.inverse(y), prepared.inverse(y.clone()))
    torch.testing.assert_close(prepared.inverse(y), expected, rtol=0, atol=scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backward_stable_where_the_corner_is_ill_conditioned(dtype: torch.dtype) -> None:
    """With D^-1 folded in the residual would grow with the condition of D, here about 1e4."""
    rng = np.random.default_rng(0)
    kernel = 0.1 * rng.standard_normal((6, 6, 2, 2))
    kernel[:, :, 0, 0] = np.tril(3 * rng.standard_normal((6, 6)), -1) + np.eye(6)
    conv = ic.AutoregressiveConv(torch.as_tensor(kernel, dtype=dtype))
    prepared = conv.prepare((5, 5), check=False)
    assert prepared.plan["at the pixel"] == "triangular solve"
    y = torch.as_tensor(rng.standard_normal((2, 6, 5, 5)), dtype=dtype)
    x = prepared.inverse(y)
    residual = (conv.forward(x) - y).norm() / x.norm()
    assert float(residual) < 10 * torch.finfo(dtype).eps


def test_threads_do_not_share_a_workspace() -> None:
    rng = np.random.default_rng(0)
    y = torch.as_tensor(rng.standard_normal((8, 8, 4, 12, 12)))
    prepared = ic.AutoregressiveConv.init(4, rng=rng, like=y).prepare((12, 12))
    expected = [prepared.inverse(part) for part in y]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(10):
            if not torch.equal(prepared.inverse(y[i]), expected[i]):
                wrong.append(i)

    threads: list[Any] = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
