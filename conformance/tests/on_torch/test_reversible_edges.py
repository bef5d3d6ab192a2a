"""Reversible chains on inputs of any size and batch, and with tensors that are not the module's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
import invconv_jax as ij
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


def jax_chain() -> ic.Chain:
    rng = np.random.default_rng(0)
    steps = [ic.Conv1x1.init(4, rng=rng), ic.EmergingConv.init(4, rng=rng)]
    return ic.Chain(steps).asarrays(jnp.zeros(0))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_jax_batch_axes_are_those_of_the_chain(batch: tuple[int, ...]) -> None:
    """C = H: a 1x1 alone could not tell which axis is which."""
    chain = jax_chain()
    x = jnp.asarray(np.random.default_rng(1).standard_normal((*batch, 4, 4, 5)))
    for got, expected in zip(
        ij.reversible(chain, (4, 5)).forward_and_log_det(x),
        chain.forward_and_log_det(x),
        strict=True,
    ):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e25])
def test_jax_an_input_of_any_size_has_a_gradient(scale: float) -> None:
    """Zero too, of which rounding leaves something else, and numbers whose squares overflow."""
    rng = np.random.default_rng(0)
    step = ic.AutoregressiveConv.init(3, rng=rng).replace(bias=np.ones(3) / 3)
    chain = ic.Chain([step] * 4).asarrays(jnp.zeros(0, "float32"))
    x = jnp.full((2, 3, 8, 8), scale, "float32")

    def loss(flow: Any) -> Any:
        return flow.forward_and_log_det(x)[0].sum()

    got, expected = jax.grad(loss)(ij.reversible(chain, (8, 8))).chain, jax.grad(loss)(chain)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_torch_an_output_that_overflows_gives_no_gradient() -> None:
    """Of a finite input: that is the layers' fault, and finite numbers would be wrong."""
    layer = it.ActNorm(3)
    torch.nn.init.constant_(layer.log_scale, 80.0)  # which numbers about 1 survive
    z, _ = it.ReversibleChain([layer])(1e6 * torch.randn(2, 3, 4, 4))
    with pytest.raises(RuntimeError, match="the gradient would be wrong"):
        z.sum().backward()
