"""Flows in training: initialisation, of each actnorm too, memory, half precision, samples."""

import copy
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp
from torch import nn

import invconv as ic
from invconv_torch import ActNorm, Squeeze
from invconv_torch.flows import AffineCoupling, Multiscale
from invconv_torch.remembered import Kept
from tests.flows.small_flows import SHAPE, glow, moved

MEAN, DEVIATION = np.asarray([3.0, -40.0, 1e-3]), np.asarray([1e-4, 7.0, 100.0])


def images(seed: int = 0) -> Any:
    noise = np.random.default_rng(seed).standard_normal((6, 3, 5, 7))
    return MEAN[:, None, None] + DEVIATION[:, None, None] * noise


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor, jnp.asarray])
def test_channels_leave_with_mean_0_and_variance_1(convert: Any) -> None:
    x, mean, deviation = convert(images()), images().mean((0, 2, 3)), images().std((0, 2, 3))
    conv = ic.ActNorm.init(3, like=x)
    y = np.asarray(conv.initialize(x).forward(x))
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-8)
    np.testing.assert_allclose(y.std((0, 2, 3)), 1, rtol=1e-10)
    assert not np.asarray(conv.log_scale).any()  # a copy was made
    scaled = np.asarray(conv.replace(bias=None).initialize(x).forward(x))
    np.testing.assert_allclose(scaled.std((0, 2, 3)), 1, rtol=1e-10)
    np.testing.assert_allclose(scaled.mean((0, 2, 3)), mean / deviation)
    one = ic.ActNorm.init(3, ndim=2, like=x).initialize(x[0])  # without batch axes
    np.testing.assert_allclose(one.log_scale, -np.log(images()[0].std((1, 2))))
    if convert is jnp.asarray:
        jitted = jax.jit(lambda conv, x: conv.initialize(x))(conv, x)
        np.testing.assert_allclose(jitted.log_scale, conv.initialize(x).log_scale)


def test_channels_last_in_memory_and_tiny_numbers_lose_nothing() -> None:
    last = 1e-23 * np.random.default_rng(0).random((16, 256, 256, 3))
    x = np.moveaxis(last.astype(np.float32), -1, 1)
    conv = ic.ActNorm.init(3, like=x).initialize(x)
    y = conv.forward(x).astype(np.float64)
    np.testing.assert_allclose(y.std((0, 2, 3)), 1, rtol=1e-5)
    bar = conv.forward_vjp(x, y.astype(np.float32))[0]["log_scale"]
    scaled = np.exp(conv.log_scale.astype(np.float64))[:, None, None] * x
    np.testing.assert_allclose(bar, (y * scaled).sum((0, 2, 3)), rtol=1e-5)


def test_half_types_are_measured_in_float32() -> None:
    x = torch.as_tensor(images() - MEAN[:, None, None], dtype=torch.bfloat16)
    conv = ic.ActNorm.init(3, like=x).initialize(x)
    assert conv.log_scale.dtype == torch.bfloat16
    expected = -x.float().std((0, 2, 3), correction=0).log()
    torch.testing.assert_close(conv.log_scale, expected.bfloat16(), rtol=0.01, atol=0)


def test_a_layer_is_initialized_once_and_says_so_in_its_state() -> None:
    layer, x = ActNorm(3, dtype=torch.float64), torch.as_tensor(images())
    layer.eval()
    layer.inverse(x)  # remembered, and to be forgotten
    layer.initialize(x)
    torch.testing.assert_close(layer(x)[0].mean((0, 2, 3)), torch.zeros(3).double())
    torch.testing.assert_close(layer.inverse(layer(x)[0])[0], x)
    assert all(p.requires_grad and p.grad is None for p in layer.parameters())
    resumed = ActNorm(3, dtype=torch.float64)
    resumed.load_state_dict(layer.state_dict())
    for other in (layer, resumed, copy.deepcopy(layer)):
        other.initialize(torch.as_tensor(7 * images(1)))
        torch.testing.assert_close(other(x)[0], layer(x)[0])
    layer.reset_parameters()
    assert not layer.initialized
    assert torch.equal(layer(x)[0], x)


def test_initialize_normalises_what_leaves_an_actnorm_once() -> None:
    flow, x = glow("periodic", (3, 8, 8), depth=2, context=2), torch.rand(32, 3, 8, 8)
    context = torch.randn(32, 2)
    assert not flow.initialized
    flow.initialize(x, context=context)
    assert flow.initialized
    seen = []

    def watch(name: str, out: Any) -> Any:
        if name.endswith("actnorm"):
            seen.append(torch.std_mean(out, dim=(0, 2, 3), correction=0))
        return out

    flow.encode(x, context=context, watch=watch)
    assert len(seen) == 4
    for std, mean in seen:
        torch.testing.assert_close(std, torch.ones_like(std), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=1e-3, atol=1e-3)


class Own(nn.Module):  # type: ignore[misc]
    """The identity; it raises each error once, and notes that it was initialized."""

    initialized = False

    def __init__(self, *errors: BaseException) -> None:
        super().__init__()
        self.errors = [*errors]

    def initialize(self, x: Any) -> None:
        self.initialized = True

    def forward(self, x: Any) -> Any:
        if self.errors and x.any():  # images of a flow's construction are 0
            raise self.errors.pop()
        return x, x.new_zeros(len(x))

    inverse = forward


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()], ids=lambda e: repr(e))
def test_initialize_sets_all_actnorms_or_none(error: BaseException) -> None:
    own = Own(), Own(error)
    flow = Multiscale(SHAPE, [ActNorm(1), *own, Squeeze(), ActNorm(4)])
    flow.layers["0"].load_state_dict({"log_scale": torch.ones(1), "bias": torch.ones(1)}, False)
    before, (first, x) = copy.deepcopy(flow.state_dict()), torch.rand(2, 8, *SHAPE)
    with pytest.raises(type(error)):
        flow.initialize(first)
    assert not any(layer.initialized for layer in own)
    torch.testing.assert_close(flow.state_dict(), before, rtol=0, atol=0)
    flow.initialize(x)
    assert flow.initialized
    z, _ = flow.layers["0"](x - 0.5)
    torch.testing.assert_close(z.mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    assert not any(layer._forward_pre_hooks for layer in flow.modules())
    flow.layers["0"].reset_parameters()
    assert not flow.initialized


def test_reversible_gradients_are_those_of_stored_activations() -> None:
    stored = moved(glow("plu", depth=2)).train()
    reversible = moved(glow("plu", depth=2, reversible=True)).train()
    reversible.load_state_dict(stored.state_dict())
    x = torch.rand(4, *SHAPE, dtype=torch.float64)
    for flow in (stored, reversible):
        flow.log_prob(x).mean().backward()
    found, wanted = ([p.grad for p in flow.parameters()] for flow in (reversible, stored))
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)
    names: list[str] = []

    def watch(name: str, out: Any) -> Any:
        names.append(name)
        return out

    zs, _ = reversible.encode(x, watch=watch)
    assert dict.fromkeys(names) == dict.fromkeys(name for name, _ in stored.steps())
    back = names[::-1]
    names.clear()
    reversible.decode(zs, watch=watch)
    assert names == back
    copied = copy.deepcopy(reversible)
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(1.1)
    copied.layers["level0_step1_actnorm"] = ActNorm(4, dtype=torch.float64)
    loss = copied.log_prob(x).mean()  # of the copy's own parameters, and of a layer put in since
    with torch.no_grad():
        torch.testing.assert_close(loss, copied.log_prob(x).mean())


def test_prepare_leaves_nothing_to_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = moved(glow("emerging_plu"), dtype=torch.float32).train()
    flow.prepare()
    assert not flow.training

    def never(*arguments: Any) -> None:
        raise AssertionError("factored after prepare")

    monkeypatch.setattr(Kept, "of", never)
    assert flow.sample(2).shape == (2, *SHAPE)
    flow.train().eval()
    with pytest.raises(AssertionError, match="after prepare"):
        flow.sample(2)
    monkeypatch.undo()
    with torch.no_grad():
        flow.layers["level1_step0_mixing"].first.kernel[0, 0, 0, 0] = 0.0
    with pytest.raises(ic.SingularConvError):
        flow.prepare()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_step_and_sampler_compile_in_one_piece() -> None:
    flow = moved(glow(levels=1), 0.05, torch.float32).train()
    images = torch.randint(256, (2, *SHAPE), dtype=torch.uint8)
    noise = torch.rand(images.shape)
    compiled = partial(torch.compile, backend="aot_eager", fullgraph=True)
    weights = list(flow.parameters())

    def step() -> Any:
        return flow.bits_per_dim(images, noise).mean()

    found, expected = compiled(step)(), step()
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, weights) for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    zs = flow.draw_latents(2)
    with torch.no_grad():
        torch.testing.assert_close(compiled(flow.decode)(zs), flow.decode(zs), rtol=1e-4, atol=1e-4)


def test_autocast_runs_networks_in_half_precision_and_maps_in_full() -> None:
    flow, x = moved(glow("qr"), 0.05, torch.float32), torch.rand(2, *SHAPE)
    expected = flow.log_prob(x)
    seen = []
    for layer in flow.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        zs, _ = flow.encode(x)
        found = flow.log_prob(x)
        layer, halves = flow.layers["level0_step0_coupling"], torch.rand(2, 4, 2, 2)
        z, _ = layer(halves)
        shift, h = layer.net(halves[:, :2]).float().chunk(2, dim=1)
        given, context = glow("plain", context=2), torch.rand(2, 2).bfloat16()  # of a network
        same = [given.log_prob(x, context=c) for c in (context, context.float())]
    assert torch.equal(*same)
    scale = 0.5 + 0.5 * torch.sigmoid(h + 2)
    torch.testing.assert_close(z[:, 2:], (halves[:, 2:] + shift) * scale)
    assert set(seen) == {torch.bfloat16}
    assert {found.dtype, *(z.dtype for z in zs)} == {torch.float32}
    assert 0 < (found - expected).abs().max() / 16 < 0.05
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_densities_of_half_precision_are_summed_in_float32(dtype: Any) -> None:
    """One 16-bit number has 3 digits, and float16's end at 65504: 49152 noises sum up to more."""
    flow, x = Multiscale((3, 128, 128), [Squeeze()]), torch.full((1, 3, 128, 128), 0.75)
    found = flow.log_prob(x.to(dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, flow.log_prob(x))
    layer, ones = AffineCoupling(2, 4, dtype=dtype), torch.ones(1, 2, 64, 64, dtype=dtype)
    z, log_det = layer(ones)
    expected = z[:, 1].double().log().sum()  # which is the scale: the network is 0
    assert log_det.dtype == torch.float32
    torch.testing.assert_close(log_det[0].double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(layer.inverse(z)[1], -log_det)
