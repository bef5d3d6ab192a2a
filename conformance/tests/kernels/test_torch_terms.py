"""Exponentials on a device: terms are counted once for every version of a kernel, never too few."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from invconv_torch import ExponentialConv2d
from invconv_torch.native import host, terms

EPS = 2.0**-23


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Have tensors be taken for those of a device; return the norms that are read."""
    found: list[float] = []

    def read(norm: Any) -> float:
        found.append(float(norm))
        return found[-1]

    monkeypatch.setattr(host, "in_host_memory", lambda x: False)
    monkeypatch.setattr(terms, "_read", read)
    return found


def layer_and_image(padding: str = "zeros") -> tuple[Any, Any]:
    torch.manual_seed(0)
    return ExponentialConv2d(2, padding=padding), torch.randn(3, 2, 4, 5, requires_grad=True)


def step(layer: Any, x: Any) -> Any:
    z, log_det = layer(x)
    gradient = torch.autograd.grad(z.square().sum() - log_det.sum(), x, create_graph=True)[0]
    gradient.square().sum().backward()
    return z


def test_a_version_of_a_kernel_is_read_once(reads: list[float]) -> None:
    layer, x = layer_and_image()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for steps in (1, 2):
        z = step(layer, x).detach()
        layer.inverse(z)[0].sum().backward()
        assert len(reads) == steps
        optimizer.step()
    layer(x[..., :3])  # another grid
    assert len(reads) == 3


def test_remembered_inverses_read_none(reads: list[float]) -> None:
    layer, x = layer_and_image("circular")
    layer.eval()
    with torch.no_grad():
        z, _ = layer(x)
        known = len(layer.inverse(z)) and len(reads)
        for _ in range(3):
            assert torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-5)
    assert len(reads) == known


@pytest.mark.parametrize("growth", [0.5, 30.0])
def test_an_edit_that_nobody_tells_of_leaves_no_wrong_number(
    reads: list[float], growth: float
) -> None:
    layer, x = layer_and_image()
    layer(x)
    layer.kernel.data *= growth
    found = step(layer, x)
    assert len(reads) == 1
    if growth > 1:
        assert found.isnan().all()
        assert layer.kernel.grad.isnan().all()
    else:
        other = ExponentialConv2d(2)
        other.load_state_dict(layer.state_dict())
        assert torch.allclose(found, other(x)[0], rtol=1e-6)
