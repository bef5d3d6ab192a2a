"""Backpropagation without stored activations: the stored version's gradients, in less memory."""

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

jax.config.update("jax_enable_x64", True)

SHAPE = (2, 4, 6, 5)


class Coupling(torch.nn.Module):  # type: ignore[misc]
    """A layer that is not invconv's."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift one half by what the other one says."""
        a, b = x.chunk(2, dim=1)
        return torch.cat([a, b + self.net(a).tanh()], dim=1), x.new_zeros(x.shape[0])

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift back."""
        a, b = z.chunk(2, dim=1)
        return torch.cat([a, b - self.net(a).tanh()], dim=1), z.new_zeros(z.shape[0])


def torch_layers() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    dtype = torch.float64
    shared = it.PeriodicConv2d(4, dtype=dtype)
    return [
        it.ActNorm(4, dtype=dtype),
        it.EmergingConv2d(4, mixing="plu", dtype=dtype),
        shared,
        Coupling(),
        it.Conv1x1(4, "qr", dtype=dtype),
        shared,  # its gradients add up
        it.AutoregressiveConv2d(4, max_gain=5.0, dtype=dtype),
    ]


def stored(layers: list[torch.nn.Module], x: torch.Tensor) -> tuple[Any, Any]:
    total: Any = 0.0
    for layer in layers:
        x, log_det = layer(x)
        total = total + log_det
    return x, total


def loss_of(outputs: tuple[Any, Any]) -> Any:
    z, log_det = outputs
    return (z**3).sum() - (log_det * log_det).sum()


def test_torch_gradients_are_those_of_the_stored_version() -> None:
    layers = torch_layers()
    chain = it.ReversibleChain(layers)
    x = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    wanted = [x, *chain.parameters()]
    for outputs in zip(stored(layers, x), chain(x), strict=True):
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-13, atol=1e-13)
    expected = torch.autograd.grad(loss_of(stored(layers, x)), wanted)
    found = torch.autograd.grad(loss_of(chain(x)), wanted)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    back, log_det = chain.inverse(chain(x)[0])
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det, -chain(x)[1], rtol=1e-9, atol=1e-9)


def test_torch_keeps_two_images_at_any_depth() -> None:
    def kept(run: Callable[[torch.Tensor], Any], depth: int) -> int:
        sizes: dict[int, int] = {}

        def pack(t: torch.Tensor) -> torch.Tensor:
            if t.dim() == 4 and t.shape[0] == 8:
                sizes[t.data_ptr()] = t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            run(torch.randn(8, 3, 8, 8))
        return sum(sizes.values()) // (8 * 3 * 8 * 8)

    for depth in (4, 16):
        layers = [it.EmergingConv2d(3) for _ in range(depth)]
        assert kept(it.ReversibleChain(layers), depth) == 2
        assert kept(lambda x, layers=layers: stored(layers, x), depth) >= depth  # type: ignore[misc]


def test_torch_refuses_a_layer_whose_inverse_is_lost() -> None:
    chain = it.ReversibleChain([it.ActNorm(2), it.AutoregressiveConv2d(2)])
    x = torch.randn(1, 2, 24, 24)
    chain(x)
    with torch.no_grad():
        chain[1].kernel[:, :, 0, 1] = -2 * torch.eye(2)
    z, _ = chain(x)  # the grid has been seen: nobody looks again
    with pytest.raises(
        RuntimeError, match=r"the input that was recomputed .* a layer's inverse is"
    ):
        z.sum().backward()
    with pytest.raises(ValueError, match="layer 1: expected an inverse that can be trusted, but"):
        chain(torch.randn(1, 2, 24, 23))


def jax_chains() -> dict[str, ic.Chain]:
    keys = iter(jax.random.split(jax.random.key(0), 32))

    def init(cls: Any, *args: Any, **settings: Any) -> Any:
        return ij.init(next(keys), cls, 4, *args, dtype="float64", **settings)

    return {
        "alike": ic.Chain([init(ic.EmergingConv) for _ in range(5)]),
        "alike chains": ic.Chain(
            [
                ic.Chain([init(ic.ActNorm), init(ic.PLUConv1x1), init(ic.PeriodicConv)])
                for _ in range(3)
            ]
        ),
        "unlike": ic.Chain(
            [init(ic.QRConv1x1), init(ic.AutoregressiveConv, 3), init(ic.PLUConv1x1)]
        ),
        "one": ic.Chain([init(ic.Conv1x1)]),
    }


@pytest.mark.parametrize("name", jax_chains())
def test_jax_gradients_are_those_of_the_stored_version(name: str) -> None:
    chain = jax_chains()[name]
    x = jax.random.normal(jax.random.key(1), SHAPE, "float64")

    def loss(flow: Any, x: Any) -> Any:
        return loss_of(flow.forward_and_log_det(x))

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))
    expected = grad(chain, x)
    found = grad(ij.reversible(chain, SHAPE[2:]), x)
    named = expected[0].parameters()
    assert found[0].chain.parameters().keys() == named.keys()
    for key, gradient in found[0].chain.parameters().items():
        np.testing.assert_allclose(gradient, named[key], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-9)


def test_jax_memory_does_not_grow_with_depth() -> None:
    def planned(depth: int, wrap: Callable[[ic.Chain], Any]) -> int:
        keys = jax.random.split(jax.random.key(0), depth)
        chain = ic.Chain([ij.init(key, ic.EmergingConv, 3, dtype="float32") for key in keys])

        def loss(flow: Any, x: Any) -> Any:
            return loss_of(flow.forward_and_log_det(x))

        x = jnp.ones((8, 3, 32, 32), "float32")
        run = jax.jit(jax.grad(loss)).lower(wrap(chain), x).compile()
        return int(run.memory_analysis().temp_size_in_bytes)

    ours = [planned(depth, lambda chain: ij.reversible(chain, (32, 32))) for depth in (3, 12)]
    assert ours[1] < 1.05 * ours[0]
    assert planned(12, lambda chain: chain) > 2 * ours[1]


def test_jax_refuses_a_step_whose_inverse_is_lost() -> None:
    good, bad = jax_chains()["alike"].steps[:2]
    assert isinstance(bad, ic.EmergingConv)
    kernel = bad.first.kernel.at[:, :, 0, 1].set(-9.0 * jnp.eye(4))
    chain = ic.Chain([good, bad.replace(**{"first.kernel": kernel})])
    with pytest.raises(ValueError, match=r"steps\[1\]: expected an inverse that can be trusted"):
        ij.reversible(chain, (24, 24))
