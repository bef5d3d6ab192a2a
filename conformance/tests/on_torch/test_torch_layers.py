"""PyTorch layers as modules: arguments, state, dtypes, memory formats, autocast."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import invconv as ic
import invconv_torch as it

Build = Callable[..., tuple[Any, Any]]


def assert_same_run(a: Any, b: Any, x: Any) -> None:
    """Hold that two layers compute the same, bit for bit, both ways."""
    for method in ("forward", "inverse"):
        for got, expected in zip(getattr(a, method)(x), getattr(b, method)(x), strict=True):
            assert torch.equal(got, expected)


def test_pickle_deepcopy_state_dict(layer_name: str, torch_layer: Build) -> None:
    layer, x = torch_layer(layer_name)
    layer.eval().inverse(x)  # what is remembered does not travel
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert other._inverses is None
        assert_same_run(layer, other, x)
    other, _ = torch_layer(layer_name)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    other.load_state_dict(layer.state_dict(), strict=True)
    assert_same_run(layer, other.eval(), x)


def test_the_seed_decides_the_start(layer_name: str, torch_layer: Build) -> None:
    first, _ = torch_layer(layer_name)
    second, _ = torch_layer(layer_name)
    torch.manual_seed(3)
    first.reset_parameters()
    torch.manual_seed(3)
    second.reset_parameters()
    third = copy.deepcopy(second)
    third.reset_parameters()
    state = second.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in first.state_dict().items())
    if layer_name != "actnorm":
        assert not all(torch.equal(t, state[n]) for n, t in third.state_dict().items())


def test_dtypes_and_devices(layer_name: str, torch_layer: Build) -> None:
    layer, x = torch_layer(layer_name)
    for half in (torch.float16, torch.bfloat16):
        small, y = copy.deepcopy(layer).to(half), x.to(half)
        single = copy.deepcopy(small).float()
        for method in ("forward", "inverse"):
            value, log_det = getattr(small, method)(y)
            expected, expected_log_det = getattr(single, method)(y.float())
            assert value.dtype == half
            assert log_det.dtype == torch.float32
            assert torch.equal(value, expected.to(half))
            assert torch.equal(log_det, expected_log_det)
        value.float().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == half for p in small.parameters())
    assert copy.deepcopy(layer).float().double()(x)[0].dtype == torch.float64
    meta, _ = torch_layer(layer_name)
    meta = meta.to("meta")
    assert all(t.is_meta for t in meta.state_dict().values())
    assert all(t.is_meta for t in meta.forward(x.to("meta")))


def test_autocast_factors_in_the_parameters_dtype(layer_name: str, torch_layer: Build) -> None:
    layer, x = torch_layer(layer_name, dtype=torch.float32)
    for method in ("forward", "inverse"):
        call = getattr(layer, method)
        expected = call(x)
        half = call(x.bfloat16().float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert all(torch.equal(a, b) for a, b in zip(call(x), expected, strict=True))
            assert all(torch.equal(a, b) for a, b in zip(call(x.bfloat16()), half, strict=True))
    with pytest.raises(TypeError, match="expected dtype float32"):
        layer(x.bfloat16())


def test_arguments_and_repr() -> None:
    layer = it.EmergingConv2d(4, (3, 5), dilation=(1, 2), mask="raster", mixing="plu", bias=False)
    text = repr(layer)
    for shown in ("raster", "dilation=(1, 2)", "PLUConv1x1", "bias=False", "kernel_size=(2, 5)"):
        assert shown in text
    names = set(layer.state_dict())
    assert {"first.kernel", "second.kernel", "mixing.lower", "mixing.permutation"} <= names
    assert "kernel_size=(2, 2)" in repr(it.AutoregressiveConv2d(3))
    assert "kernel_size=(3, 5)" in repr(it.SymmetricConv2d(3, (3, 5)))
    assert isinstance(layer.operator(), ic.Chain)
    for bad in ({"mixing": "lu"}, {"mask": "circle"}, {"kernel_size": 2}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            it.EmergingConv2d(4, **bad)
    with pytest.raises(ValueError, match="parametrization"):
        it.Conv1x1(4, "lu")
    with pytest.raises(ValueError, match="4 channel"):
        layer(torch.zeros(1, 3, 8, 8))


def test_settings_are_named_and_operators_are_operators() -> None:
    with pytest.raises(TypeError, match="positional arguments"):
        # not in, out, size, as PyTorch's own have it
        it.EmergingConv2d(3, 3, 3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"got ActNorm; of a layer pass layer.operator\(\)"):
        it.InvertibleModule(it.ActNorm(3))
    with pytest.raises(TypeError, match=r"got tuple; a layer returns \(z, log_det\)"):
        torch.nn.Sequential(it.ActNorm(3), it.ActNorm(3))(torch.zeros(1, 3, 2, 2))


def test_what_is_loaded_is_validated() -> None:
    layer, x = it.Conv1x1(3, "plu"), torch.zeros(1, 3, 2, 2)
    layer(x)
    state = layer.state_dict()
    state["permutation"] = torch.zeros(3, dtype=torch.int64)
    layer.load_state_dict(state)
    with pytest.raises(ValueError, match="permutation: expected each of 0 to 2 once"):
        layer(x)
