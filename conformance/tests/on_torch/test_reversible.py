"""PyTorch chains without stored activations: the stored version's gradients, in less memory."""

from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import invconv as ic
import invconv_torch as it

SHAPE = (2, 4, 6, 5)


class Coupling(torch.nn.Module):  # type: ignore[misc]
    """A layer that is not invconv's."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.net = torch.nn.Conv2d(2, 2, 3, padding=1, dtype=dtype)

    def forward(self, x: torch.Tensor, sign: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = x.chunk(2, dim=1)
        return torch.cat([a, b + sign * self.net(a).tanh()], dim=1), x.new_zeros(x.shape[0])

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward(z, -1)


def torch_layers() -> list[torch.nn.Module]:
    dtype = torch.float64
    first, shared = it.ActNorm(4, dtype=dtype), it.PeriodicConv2d(4, dtype=dtype)
    torch.nn.init.constant_(first.log_scale, 0.1)  # a log-determinant of 0 would not be missed
    return [
        first,
        it.EmergingConv2d(4, mixing="plu", dtype=dtype),
        shared,
        Coupling(),
        it.Conv1x1(4, "qr", dtype=dtype),
        shared,  # its gradients add up
        it.AutoregressiveConv2d(4, max_gain=5.0, dtype=dtype),
        *(kind(4, dtype=dtype) for kind in (it.SymmetricConv2d, it.ExponentialConv2d)),
        *(it.Conv1x1(4, name, dtype=dtype) for name in ("orthogonal", "circulant")),
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


@pytest.mark.parametrize("cls", [it.Chain, it.ReversibleChain])
def test_values_are_those_of_the_stored_version(cls: Any) -> None:
    layers = torch_layers()
    chain, x = cls(layers), torch.randn(SHAPE, dtype=torch.float64)
    z, log_det = chain(x)
    torch.testing.assert_close((z, log_det), stored(layers, x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(chain.inverse(z), (x, -log_det), rtol=1e-9, atol=1e-9)
    cls([it.Conv1x1(4, "qr", bias=False)])(x.float())[0].zero_()  # autograd refuses this of a view


def test_a_chain_is_saved_and_diagnosed_as_a_layer_is(tmp_path: Path) -> None:
    layers = [layer for layer in torch_layers() if not isinstance(layer, Coupling)]
    chain, x = it.Chain(layers), torch.randn(SHAPE, dtype=torch.float64)
    it.save(chain, tmp_path / "chain.safetensors")
    same = it.load(tmp_path / "chain.safetensors")
    torch.testing.assert_close(same(x), chain(x), rtol=1e-12, atol=1e-12)
    assert len(ic.diagnose(chain, SHAPE[2:]).steps) == len(layers)


def tied() -> Any:
    """Layers of which two have the same weights, and one stands twice."""
    first, second, norm = Coupling(), Coupling(), it.ActNorm(4, dtype=torch.float64)
    second.net.weight = first.net.weight
    return it.Chain([first, norm, second, norm])


HOW = ["plain", "functional", "checkpoint", "reentrant", "on the host", "replica"]


@pytest.mark.parametrize("how", HOW)
def test_gradients_are_those_of_the_stored_version(how: str, monkeypatch: Any) -> None:
    """Saved tensors may come back as copies, and may have been those of another chain."""
    layers = [*torch_layers(), tied()]
    run: Any = it.ReversibleChain(layers)
    if how == "functional":
        layers = [*torch_layers(), tied()]  # with other permutations
        run = partial(torch.func.functional_call, run, it.Chain(layers).state_dict(keep_vars=True))
    if how == "replica":  # of DataParallel, which copies to accelerators alone
        copies: Any = lambda tensors, *_, **__: [[t.clone() for t in tensors]]  # noqa: E731
        replicate = import_module("torch.nn.parallel.replicate")
        monkeypatch.setattr(replicate, "_broadcast_coalesced_reshape", copies)
        (run,) = replicate.replicate(run, [0])
    x = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    leaves = x, *it.Chain(layers).parameters()
    if how in ("checkpoint", "reentrant"):
        reentrant = how == "reentrant"
        run = partial(torch.utils.checkpoint.checkpoint, run, use_reentrant=reentrant)
    with torch.autograd.graph.save_on_cpu() if how == "on the host" else nullcontext():
        loss_of(run(x)).backward()  # a reentrant checkpoint takes no autograd.grad
    expected = torch.autograd.grad(loss_of(stored(layers, x)), leaves)
    torch.testing.assert_close(tuple(w.grad for w in leaves), expected, rtol=1e-9, atol=1e-9)


def test_keeps_two_images_at_any_depth() -> None:
    def kept(chain: it.Chain) -> int:
        sizes: dict[int, int] = {}

        def pack(t: torch.Tensor) -> torch.Tensor:
            if t.dim() == 4 and t.shape[0] == 8:
                sizes[t.data_ptr()] = t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            chain(torch.randn(8, 3, 8, 8))
        return sum(sizes.values()) // (8 * 3 * 8 * 8)

    for depth in (4, 16):
        layers = [it.EmergingConv2d(3) for _ in range(depth)]
        assert kept(it.ReversibleChain(layers)) == 2
        assert kept(it.Chain(layers)) >= depth


def test_judges_every_layer_on_its_own_grid_and_one_that_replaces_it() -> None:
    """Training that loses an inverse is in `stability.test_promises`."""
    weak = it.AutoregressiveConv2d(4)
    with torch.no_grad():
        weak.kernel[:, :, 0, 1] = weak.kernel[:, :, 1, 0] = -1.5 * torch.eye(4)
    chain = it.ReversibleChain([it.ActNorm(1), it.Squeeze(), weak])
    chain(torch.randn(1, 1, 8, 8))[0].sum().backward()  # 4 x 4 are few enough pixels, 8 x 8 not
    message = "layer 2: expected an inverse that can be trusted, but .* on a grid of 8 x 8 is off"
    with pytest.raises(ValueError, match=message):
        chain(torch.randn(1, 1, 16, 16))
    with pytest.raises(ValueError, match="layers 0 to 1: expected an inverse that can be trusted"):
        it.ReversibleChain([weak, weak])(torch.randn(1, 4, 6, 6))
    chain[2], x = it.AutoregressiveConv2d(4), torch.randn(1, 1, 16, 16)
    chain(x)
    chain[2] = weak
    with pytest.raises(ValueError, match=message):
        chain(x)


def test_recomputes_as_autocast_computed() -> None:
    couplings = [Coupling(torch.float32) for _ in range(2)]  # which autocast runs in bfloat16
    chain = it.ReversibleChain([it.ActNorm(4), *couplings])
    x = torch.randn(SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = loss_of(chain(x)), loss_of(stored(list(chain), x))
    pair = (torch.autograd.grad(loss, chain.parameters()) for loss in (found, expected))
    for a, b in zip(*pair, strict=True):
        assert (a - b).norm() < 1e-2 * b.norm()


def test_a_frozen_weight_gets_no_gradient_and_the_others_theirs() -> None:
    layers = torch_layers()
    chain = it.ReversibleChain(layers)
    layers[1].first.kernel.requires_grad_(False)
    layers[0].register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    x = torch.randn(SHAPE, dtype=torch.float64)
    for run in (chain, lambda x: stored(layers, x)):
        chain.zero_grad()
        loss_of(run(x)).backward()
        found = {n: p.grad for n, p in chain.named_parameters()}
        assert found.pop("1.first.kernel") is found.pop("0.unused") is None
        assert all(g is not None for g in found.values())


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 4e3), (torch.float32, 1e20)])
def test_a_lost_inverse_is_noticed_at_any_scale(dtype: Any, scale: float) -> None:
    """Of numbers whose squares leave the range of the dtype."""
    layer = it.AutoregressiveConv2d(1, 2, bias=False, dtype=dtype)
    chain = it.ReversibleChain([layer])
    x = (scale * torch.randn(1, 1, 32, 32)).to(dtype)
    chain(x)  # the grid was judged
    with torch.no_grad():
        layer.kernel.copy_(torch.tensor([[[[1, -0.9], [-0.9, 0.0]]]]))
    with pytest.raises(RuntimeError, match="differs from the noise"):
        chain(x)[0].float().mean().backward()


def test_where_nobody_can_look_a_lost_image_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator: its own gradient, and those by weights, of which it is a part."""
    monkeypatch.setattr("invconv_torch.chain.readable", lambda x: False)
    layer, x = Coupling(), torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    back, lost = layer.inverse, torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    for off in (0 * lost, lost):
        monkeypatch.setattr(layer, "inverse", lambda z, off=off: (back(z)[0] + off, back(z)[1]))
        loss = loss_of(it.ReversibleChain([layer])(x))
        x_bar, *bars = torch.autograd.grad(loss, (x, *layer.parameters()))
        assert x_bar.isnan().flatten(1).all(1).tolist() == off.flatten().bool().tolist()
        assert x_bar.isnan().flatten(1).any(1).tolist() == off.flatten().bool().tolist()
        assert {bool(bar.isnan().all()) for bar in bars} == {bool(off.any())}


def test_an_output_that_overflows_gives_no_gradient() -> None:
    """Of a finite input: that is the layers' fault, and finite numbers would be wrong."""
    layer = it.ActNorm(3)
    torch.nn.init.constant_(layer.log_scale, 80.0)  # which numbers about 1 survive
    z, _ = it.ReversibleChain([layer])(1e6 * torch.randn(2, 3, 4, 4))
    with pytest.raises(RuntimeError, match="the gradient would be wrong"):
        z.sum().backward()
    with pytest.raises(NotImplementedError, match="reversible=False"):
        torch.func.vjp(it.ReversibleChain([layer]), z)
