"""PyTorch chains without stored activations: the stored version's gradients, in less memory."""

from __future__ import annotations

import copy
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
        it.SymmetricConv2d(4, dtype=dtype),
        it.ExponentialConv2d(4, dtype=dtype),
        it.Conv1x1(4, "orthogonal", dtype=dtype),
        it.Conv1x1(4, "circulant", dtype=dtype),
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
    z, _ = chain(x)  # the grid has been seen: nobody looks before the backward pass
    with pytest.raises(
        RuntimeError, match=r"noise that was recomputed by layers 0 to 1 .* a layer's inverse is"
    ):
        z.sum().backward()
    with pytest.raises(ValueError, match="layer 1: expected an inverse that can be trusted, but"):
        chain(torch.randn(1, 2, 24, 23))
    chain[1] = copy.deepcopy(chain[1])
    with pytest.raises(ValueError, match="layer 1: expected an inverse that can be trusted, but"):
        chain(x)  # another layer, on the same grid


def no_inverse() -> None:
    it.ReversibleChain([it.ActNorm(2), torch.nn.Linear(2, 2)])  # found at once, not after an epoch


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: it.ReversibleChain([]), ValueError, "layers: expected modules .* got none"),
        (no_inverse, TypeError, "layers: expected modules with forward.* got Linear at 1"),
        (lambda: it.ReversibleChain(it.ActNorm(2)), TypeError, "in a list, got one ActNorm"),
        (
            lambda: it.ReversibleChain([ic.ActNorm.init(2)]),
            TypeError,
            r"got ActNorm at 0; InvertibleModule\(conv\) is one",
        ),
        (
            lambda: it.ReversibleChain([it.ActNorm(2)])(np.zeros((1, 2, 3))),
            TypeError,
            "x: expected a torch.Tensor, got ndarray",
        ),
        (
            lambda: it.ReversibleChain([it.ActNorm(2)])(torch.zeros(1, 3, 4)),
            ValueError,
            r"x: expected shape \(batch, 2, \*spatial\)",
        ),
    ],
)
def test_what_cannot_be_reversed_is_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_torch_judges_every_layer_on_its_own_grid() -> None:
    class Squeeze(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.pixel_unshuffle(x, 2), x.new_zeros(x.shape[0])

        def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.pixel_shuffle(z, 2), z.new_zeros(z.shape[0])

    weak = it.AutoregressiveConv2d(4)
    with torch.no_grad():
        weak.kernel[:, :, 0, 1] = -1.5 * torch.eye(4)
        weak.kernel[:, :, 1, 0] = -1.5 * torch.eye(4)
    chain = it.ReversibleChain([it.ActNorm(1), Squeeze(), weak])
    chain(torch.randn(1, 1, 8, 8))[0].sum().backward()  # 4 x 4 are few enough pixels, 8 x 8 not
    with pytest.raises(ValueError, match=r"layer 2: .* on a grid of 8 x 8 is off by"):
        chain(torch.randn(1, 1, 16, 16))


def test_torch_recomputes_as_autocast_computed() -> None:
    class Mixed(Coupling):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Conv2d(2, 2, 3, padding=1)  # which autocast runs in bfloat16

    torch.manual_seed(0)
    chain = it.ReversibleChain([it.ActNorm(4), Mixed(), Mixed()])
    x = torch.randn(SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = loss_of(chain(x)), loss_of(stored(list(chain), x))
    for a, b in zip(
        torch.autograd.grad(found, chain.parameters()),
        torch.autograd.grad(expected, chain.parameters()),
        strict=True,
    ):
        assert (a - b).norm() < 1e-2 * b.norm()


def test_a_gradient_that_would_be_wrong_is_nan_where_nobody_can_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain = it.ReversibleChain([it.ActNorm(2), it.AutoregressiveConv2d(2)])
    x = torch.randn(1, 2, 24, 24, requires_grad=True)
    monkeypatch.setattr("invconv_torch.reversible.readable", lambda x: False)  # as on a GPU
    wanted = [x, *chain.parameters()]
    assert all(g.isfinite().all() for g in torch.autograd.grad(chain(x)[0].sum(), wanted))
    with torch.no_grad():
        chain[1].kernel[:, :, 0, 1] = -2 * torch.eye(2)
    assert all(g.isnan().all() for g in torch.autograd.grad(chain(x)[0].sum(), wanted))

    flow = ij.reversible(ic.Chain([ic.AutoregressiveConv(jnp.eye(2)[:, :, None] * 1.0)] * 2), (64,))
    image = jax.random.normal(jax.random.key(0), (1, 2, 64), "float64")
    gradient = jax.jit(jax.grad(lambda flow, x: flow.forward_and_log_det(x)[0].sum(), (0, 1)))
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient(flow, image)))
    grown = jax.tree.map(lambda k: jnp.concat([k, -3 * k], axis=-1), flow)
    assert all(jnp.isnan(g).all() for g in jax.tree.leaves(gradient(grown, image)))


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("strength", [0.05, 0.2, 0.3, 0.35])
def test_float32_gradients_are_as_right_as_the_condition_says(
    strength: float, library: str
) -> None:
    """Against float64 and stored activations, for chains that lose one to five digits."""
    rng = np.random.default_rng(0)
    kernels = strength * rng.standard_normal((4, 3, 3, 2, 2))
    kernels[:, :, :, 0, 0] = np.eye(3)
    chain = ic.Chain([ic.AutoregressiveConv(kernel) for kernel in kernels])
    x, z_bar = rng.standard_normal((2, 4, 3, 8, 8))
    expected, x_bar = chain.forward_vjp(x, z_bar)
    loss = ic.diagnose(chain, (8, 8), "float32").loss
    found: list[Any]
    if library == "torch":
        like = torch.empty(0)
        flow = it.ReversibleChain([it.InvertibleModule(s.asarrays(like)) for s in chain.steps])
        image = torch.as_tensor(x, dtype=torch.float32).requires_grad_()
        bar = torch.as_tensor(z_bar, dtype=torch.float32)
        found = list(torch.autograd.grad(flow(image)[0], [*flow.parameters(), image], bar))
    else:
        there = ij.reversible(chain.asarrays(jnp.empty(0, "float32")), (8, 8))
        pull = jax.vjp(
            lambda flow, x: flow.forward_and_log_det(x)[0], there, jnp.asarray(x, "float32")
        )[1]
        flow_bar, image_bar = pull(jnp.asarray(z_bar, "float32"))
        found = [*flow_bar.chain.parameters().values(), image_bar]
    assert 1 < loss < 1e-2 * 2**23
    for a, b in zip(found, [*expected.values(), x_bar], strict=True):
        assert np.linalg.norm(np.asarray(a) - b) <= 2 * loss * 2.0**-23 * np.linalg.norm(b)
