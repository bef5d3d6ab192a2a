"""How PyTorch layers come to be: deferred, under fake tensors, from operators of another dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
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
    assert {p.dtype for p in make(layer_name).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "layer", [it.AutoregressiveConv2d(3), it.EmergingConv2d(3), it.PeriodicConv2d(3), it.Conv1x1(3)]
)
def test_channels_last_comes_back(layer: Any) -> None:
    x = torch.randn(2, 3, 5, 4)
    last = x.to(memory_format=torch.channels_last)
    for direction in (layer.forward, layer.inverse, layer.eval().inverse):
        got, expected = direction(last)[0], direction(x)[0]
        assert got.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
