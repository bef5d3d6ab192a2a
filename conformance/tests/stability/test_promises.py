"""`invconv.bounded`: an inverse's gain stays below its promise, whatever the parameters become."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_torch as it
from invconv_conformance.cases.case import Case
from tests.selected import cases_named

jax.config.update("jax_enable_x64", True)

Operator = ic.InvertibleConv
MAX_GAIN = 10.0
GRID = (4, 4)

NAMES = (
    *("actnorm-2d", "conv1x1-2d", "pluconv1x1-2d", "qrconv1x1-m1", "circulantconv1x1-2d"),
    *("corner-2d++", "raster-2d-1", "corner-one-channel", "emerging-dilated"),
    *("periodic-even-dilated", "periodic-k7", "symmetric-2d", "chain-merged"),
)


def gain(conv: Operator) -> torch.Tensor:
    """Return |K^-1|_2 on a small grid, differentiable, from the dense matrix of the forward map."""
    n = conv.channels * GRID[0] * GRID[1]
    unit = torch.eye(n, dtype=torch.float64).reshape(n, conv.channels, *GRID)
    matrix = conv.forward(unit) - conv.forward(torch.zeros_like(unit))  # without the bias
    return 1 / torch.linalg.svdvals(matrix.reshape(n, n))[-1]


def in_torch(conv: Operator) -> tuple[Operator, dict[str, torch.Tensor]]:
    conv = conv.asarrays(torch.empty(0, dtype=torch.float64))
    weights = {n: p.clone().requires_grad_() for n, p in conv.parameters().items()}
    return conv, weights


def attack(conv: Operator, spread: float) -> list[float]:
    """Let Adam look for parameters with a large gain, from parameters that are spread out."""
    rng = np.random.default_rng(int(1000 * spread))
    start = {n: p + spread * rng.standard_normal(p.shape) for n, p in conv.parameters().items()}
    conv, weights = in_torch(conv.replace(**start))
    search = torch.optim.Adam(weights.values(), lr=0.1 * max(spread, 1.0))
    found = []
    for _ in range(20):
        size = gain(ic.bounded(conv.replace(**weights), MAX_GAIN))
        found.append(size.item())
        search.zero_grad()
        (-torch.log(size)).backward()
        assert all(torch.isfinite(w.grad).all() for w in weights.values() if w.grad is not None)
        search.step()
    return found


@pytest.mark.parametrize("case", cases_named(*NAMES), ids=lambda case: case.name)
def test_no_search_breaks_the_promise(case: Case) -> None:
    conv = case.conv()
    gains = [size for spread in (0.0, 1.0, 300.0) for size in attack(conv, spread)]
    assert max(gains) <= MAX_GAIN * (1 + 1e-12)
    assert max(gains) > MAX_GAIN ** (1 / 3)  # the search was one


def test_the_initialisation_is_hardly_changed() -> None:
    rng = np.random.default_rng(0)
    for conv in (ic.EmergingConv.init(12, rng=rng), ic.QRConv1x1.init(12, rng=rng)):
        for name, array in ic.bounded(conv, 100.0).parameters().items():
            assert np.abs(array - conv.parameters()[name]).max() < 0.002
    # sum |taps| = 0.9, nearly all there is room for
    corner = ic.AutoregressiveConv.init(48, rng=rng)
    there = ic.bounded(corner, 100.0).kernel
    assert np.linalg.norm(there - corner.kernel) < 0.25 * np.linalg.norm(corner.kernel)


def test_gradients_exist_where_there_is_nothing() -> None:
    zero = ic.AutoregressiveConv(np.eye(2)[:, :, None, None] * np.eye(1, 4).reshape(2, 2))
    orthogonal = ic.QRConv1x1.init(2, rng=np.random.default_rng(0))
    for conv in (zero, ic.PeriodicConv(zero.kernel), orthogonal):
        there, weights = in_torch(conv)
        there = ic.bounded(there.replace(**weights), 5.0)
        there.inverse(torch.ones(1, 2, *GRID, dtype=torch.float64)).sum().backward()
        assert all(torch.isfinite(w.grad).all() for w in weights.values())


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_an_exponential_keeps_its_promise_at_any_size(padding: str) -> None:
    kernel = torch.as_tensor(1e30 * np.random.default_rng(0).standard_normal((3, 3, 3, 1)))
    kernel = kernel.repeat(4, 4, 1, 1).requires_grad_()  # 12 channels
    conv = ic.bounded(ic.ExponentialConv(kernel, padding=padding), MAX_GAIN)
    assert gain(conv) <= MAX_GAIN * (1 + 1e-9)
    conv.forward(torch.ones(1, 12, *GRID, dtype=torch.float64)).square().sum().backward()
    assert kernel.grad.isfinite().all()


def test_what_cannot_be_promised_is_refused() -> None:
    conv = ic.ActNorm.init(2)
    single = np.float32(1), np.float32("inf")  # would turn limits that they meet into their type
    for wrong in (1.0, 1 + 1e-12, 0.5, float("inf"), float("nan"), "10", 10**400, *single):
        with pytest.raises(ValueError, match="max_gain: expected a finite number above 1"):
            ic.bounded(conv, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whose class bounds its inverse, got Inverse; bound"):
        ic.bounded(ic.Inverse(conv), 10.0)
    with pytest.raises(ValueError, match="max_gain"):
        it.Conv1x1(3, max_gain=0.1)
