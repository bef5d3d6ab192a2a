"""Reversible chains on inputs of any size and batch, and with tensors that are not the module's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import pytest
import torch

import invconv_torch as it
from tests.on_torch.test_reversible import SHAPE, loss_of, stored, torch_layers

jax.config.update("jax_enable_x64", True)


def gradients_of(run: Callable[..., Any], x: torch.Tensor, weights: list[Any]) -> list[Any]:
    return list(torch.autograd.grad(loss_of(run(x)), (x, *weights)))


@pytest.mark.parametrize("how", ["checkpoint", "reentrant", "on the host"])
def test_torch_saved_tensors_may_come_back_as_copies(how: str) -> None:
    layers = torch_layers()
    chain = it.ReversibleChain(layers)
    weights = list(chain.parameters())
    x = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    expected = gradients_of(lambda x: stored(layers, x), x, weights)
    if how == "reentrant":  # which takes no autograd.grad
        loss_of(torch.utils.checkpoint.checkpoint(chain, x, use_reentrant=True)).backward()
        got = [x.grad, *(w.grad for w in weights)]
    elif how == "checkpoint":
        run = lambda x: torch.utils.checkpoint.checkpoint(chain, x, use_reentrant=False)  # noqa: E731
        got = gradients_of(run, x, weights)
    else:
        with torch.autograd.graph.save_on_cpu():
            got = gradients_of(chain, x, weights)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_torch_weights_that_were_passed_are_those_that_are_differentiated() -> None:
    layers = torch_layers()
    chain = it.ReversibleChain(layers)
    other = {n: (1.1 * p.detach()).requires_grad_() for n, p in chain.named_parameters()}
    x = torch.randn(SHAPE, dtype=torch.float64)
    run = torch.func.functional_call(chain, other, (x,))
    got = torch.autograd.grad(loss_of(run), list(other.values()))
    with torch.no_grad():
        for name, weight in chain.named_parameters():
            weight.copy_(other[name])
    expected = torch.autograd.grad(loss_of(stored(layers, x)), list(chain.parameters()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_torch_a_frozen_weight_gets_no_gradient_and_the_others_theirs() -> None:
    layers = torch_layers()
    chain = it.ReversibleChain(layers)
    layers[1].first.kernel.requires_grad_(False)
    x = torch.randn(SHAPE, dtype=torch.float64)
    for run in (chain, lambda x: stored(layers, x)):
        chain.zero_grad()
        loss_of(run(x)).backward()
        found = {n: p.grad for n, p in chain.named_parameters()}
        assert found.pop("1.first.kernel") is None
        assert all(g is not None for g in found.values())


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 4e3), (torch.float32, 1e20)])
def test_torch_a_lost_inverse_is_noticed_at_any_scale(dtype: Any, scale: float) -> None:
    """Of numbers whose squares leave the range of the dtype."""
    layer = it.AutoregressiveConv2d(1, 2, bias=False, dtype=dtype)
    chain = it.ReversibleChain([layer])
    x = (scale * torch.randn(1, 1, 32, 32)).to(dtype)
    chain(x)  # the grid was judged
    with torch.no_grad():
        layer.kernel.copy_(torch.tensor([[[[1, -0.9], [-0.9, 0.0]]]]))
    with pytest.raises(RuntimeError, match="differs from the noise"):
        chain(x)[0].float().mean().backward()


def test_torch_an_output_that_overflows_gives_no_gradient() -> None:
    """Of a finite input: that is the layers' fault, and finite numbers would be wrong."""
    layer = it.ActNorm(3)
    torch.nn.init.constant_(layer.log_scale, 80.0)  # which numbers about 1 survive
    z, _ = it.ReversibleChain([layer])(1e6 * torch.randn(2, 3, 4, 4))
    with pytest.raises(RuntimeError, match="the gradient would be wrong"):
        z.sum().backward()
