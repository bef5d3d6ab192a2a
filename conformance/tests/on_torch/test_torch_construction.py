"""How PyTorch layers come to be: deferred, under fake tensors, from operators of another dtype."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import invconv as ic
import invconv_torch as it
from invconv_torch.interop import TorchTransform
from tests.conftest import TORCH_LAYERS

Build = Callable[..., tuple[Any, Any]]


def make(name: str) -> Any:
    kind, arguments, settings, _ = TORCH_LAYERS[name]
    return getattr(it, kind)(*arguments, **settings)


def test_deferred_initialisation(layer_name: str) -> None:
    with torch.device("meta"):
        layer = make(layer_name)
    layer.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in layer.state_dict(keep_vars=True).values():
            tensor.fill_(-7)  # as memory may be that nobody has filled
    expected = make(layer_name)
    for each in (layer, expected):
        torch.manual_seed(5)
        each.reset_parameters()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(layer.state_dict()[name], tensor), name


def test_layers_are_made_of_fake_tensors(layer_name: str) -> None:
    with FakeTensorMode():
        layer = make(layer_name)
        assert all(isinstance(p.data, FakeTensor) for p in layer.parameters())
    assert [p.shape for p in layer.parameters()] == [p.shape for p in make(layer_name).parameters()]


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f8"])
def test_an_operator_keeps_its_dtype(dtype: str) -> None:
    conv = ic.EmergingConv.init(3, rng=np.random.default_rng(0), like=np.zeros(1, dtype))
    wanted = torch.float32 if dtype == "float32" else torch.float64
    for module in (it.InvertibleModule(conv), TorchTransform(conv)):
        assert {p.dtype for p in module.parameters()} == {wanted}
    kernel = it.InvertibleModule(conv).first.kernel.detach().numpy()
    np.testing.assert_array_equal(kernel, conv.first.kernel)
    half = it.InvertibleModule(conv, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_layers_begin_in_the_default_dtype(layer_name: str) -> None:
    parameters = list(make(layer_name).parameters())
    assert {p.dtype for p in parameters} == {torch.float32}
    assert all(p.is_contiguous() for p in parameters), "torch.export.save warns of others"


@pytest.mark.parametrize("name", [n for n in TORCH_LAYERS if not n.endswith(("1d", "3d"))])
def test_channels_last_comes_back(name: str, torch_layer: Build) -> None:
    """For layers in the same format, too."""
    layer, _ = torch_layer(name)
    x = torch.randn(2, TORCH_LAYERS[name][1][0], 5, 4, dtype=torch.float64)
    last = x.to(memory_format=torch.channels_last)
    layer.to(memory_format=torch.channels_last)
    for direction in (layer.forward, layer.inverse, layer.eval().inverse):
        got, expected = direction(last)[0], direction(x)[0]
        with torch.no_grad():
            assert direction(last)[0].is_contiguous(memory_format=torch.channels_last)
        assert got.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_parametrizations(layer_name: str, torch_layer: Build) -> None:
    """PyTorch's weight_norm of the largest parameter: the same map, and gradients beneath it."""
    layer, x = torch_layer(layer_name)
    name, tensor = max(layer.named_parameters(), key=lambda item: item[1].numel())
    path, _, own = name.rpartition(".")
    module, expected = layer.get_submodule(path), layer(x)
    if tensor.ndim < 2:
        with torch.no_grad():
            tensor.abs_().add_(0.1)
        expected = layer(x)
        torch.nn.utils.parametrize.register_parametrization(module, own, Positive())
    else:
        torch.nn.utils.parametrizations.weight_norm(module, own)
    z, log_det = layer(x)
    torch.testing.assert_close((z, log_det), expected, rtol=1e-12, atol=1e-12)
    for mode in (True, False):
        back, _ = layer.train(mode).inverse(z)
        torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    (z**2).sum().backward()
    beneath = list(module.parametrizations[own].parameters())
    assert beneath
    assert all(p.grad is not None and p.grad.isfinite().all() for p in beneath)


class Positive(torch.nn.Module):  # type: ignore[misc]
    """Keeps a parameter above zero."""

    def forward(self, x: Any) -> Any:
        """Return numbers from any."""
        return x.exp()

    def right_inverse(self, y: Any) -> Any:
        """Return what numbers are made of."""
        return y.log()


def test_a_state_goes_into_a_layer_of_its_own_kind_only(
    layer_name: str, torch_layer: Build
) -> None:
    """Also through a file; what says nothing of its kind is loaded as ever."""
    layer, x = torch_layer(layer_name)
    kind, arguments, settings, _ = TORCH_LAYERS[layer_name]
    stream = io.BytesIO()
    torch.save(layer.state_dict(), stream)
    stream.seek(0)
    state = torch.load(stream)
    other = getattr(it, kind)(*arguments, **settings, dtype=torch.float64)
    other.load_state_dict(state)
    torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)
    for more in ({"max_gain": 7.0}, {"dilation": 3}, {"padding": "circular"}, {"direction": 1}):
        if next(iter(more)) in inspect.signature(getattr(it, kind)).parameters:
            another = getattr(it, kind)(*arguments, **(settings | more), dtype=torch.float64)
            if repr(another) == repr(other):
                continue
            with pytest.raises(
                RuntimeError, match=f"got that of .*{next(iter(more))}=|got that of"
            ):
                another.load_state_dict(state)
            another.load_state_dict(dict(state))


def test_a_state_of_another_class_is_refused_in_a_model_too() -> None:
    one, other = (
        torch.nn.Sequential(layer, it.ActNorm(2))
        for layer in (it.PeriodicConv2d(2), it.ExponentialConv2d(2))
    )
    message = r"0: expected the state of ExponentialConv\(.*, got that of PeriodicConv\("
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=message):
            other.load_state_dict(one.state_dict(), strict=strict)
