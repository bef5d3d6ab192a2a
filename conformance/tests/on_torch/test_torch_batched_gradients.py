"""Many cotangents at once, in the vmap that `torch.autograd` has of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd.functional import hessian, jacobian

Build = Callable[..., tuple[Any, Any]]


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_batched_gradients(layer_name: str, direction: str, torch_layer: Build) -> None:
    layer, x = torch_layer(layer_name)
    parameters = list(layer.parameters())
    x.requires_grad_()
    y, log_det = getattr(layer, direction)(x)
    bars = torch.randn(3, *y.shape, dtype=y.dtype), torch.randn(3, *log_det.shape, dtype=y.dtype)
    inputs = [x, *parameters]
    every = torch.autograd.grad(
        (y, log_det), inputs, bars, is_grads_batched=True, retain_graph=True
    )
    for n in range(3):
        one = torch.autograd.grad((y, log_det), inputs, [b[n] for b in bars], retain_graph=True)
        for got, expected in zip(every, one, strict=True):
            torch.testing.assert_close(got[n], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("layer_name", ["autoregressive-1d", "periodic-1d", "plain", "qr", "plu"])
def test_vectorized_jacobians(direction: str, layer_name: str, torch_layer: Build) -> None:
    layer, x = torch_layer(layer_name)
    x = x[:1]

    def cubes(z: Any) -> Any:
        return (getattr(layer, direction)(z)[0] ** 3).flatten()

    def slope(z: Any, vectorize: bool) -> Any:
        return jacobian(cubes, z, create_graph=True, vectorize=vectorize)

    torch.testing.assert_close(slope(x, True), slope(x, False))
    of_sum = [hessian(lambda z: cubes(z).sum(), x, vectorize=v) for v in (True, False)]
    torch.testing.assert_close(*of_sum)
    assert of_sum[1].abs().max() > 1e-3  # there is something to compare
    # one level of vmap inside another
    nested = [jacobian(lambda z, v=v: slope(z, v)[:2], x, vectorize=v) for v in (True, False)]
    torch.testing.assert_close(*nested)
