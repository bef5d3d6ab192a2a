"""PyTorch's derivatives of every layer, against differences and the dense matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from tests.on_torch.modules import Method

# what PyTorch's own forward mode imports
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

Build = Callable[..., tuple[Any, Any]]

directions = pytest.mark.parametrize("direction", ["forward", "inverse"])


def as_function(layer: Any, direction: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return f(x, *parameters) and the parameters."""
    module = Method(layer, direction)
    parameters = dict(module.named_parameters())

    def function(x: Any, *values: Any) -> Any:
        return functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

    return function, parameters


@directions
def test_gradcheck(layer_name: str, torch_layer: Build, direction: str) -> None:
    """The Jacobian in random directions, in which any wrong entry shows."""
    layer, x = torch_layer(layer_name)
    function, parameters = as_function(layer, direction)
    inputs = (x.requires_grad_(), *parameters.values())
    settings: Any = {"rtol": 1e-5, "atol": 1e-6, "check_forward_ad": True, "fast_mode": True}
    assert gradcheck(function, inputs, **settings, check_batched_grad=True)
    assert gradgradcheck(function, inputs, atol=1e-4, fast_mode=True)


def test_gradient_through_a_remembered_inverse(layer_name: str, torch_layer: Build) -> None:
    layer, x = torch_layer(layer_name)
    layer.eval()
    function, parameters = as_function(layer, "inverse")
    layer.inverse(x)
    assert layer._inverses is not None
    inputs = (x.requires_grad_(), *parameters.values())
    expected = torch.autograd.grad(_scalar(layer.train().inverse(x)), inputs)
    layer.eval().inverse(x)
    got = torch.autograd.grad(_scalar(layer.inverse(x)), inputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    if layer_name == "emerging-2d":
        assert gradgradcheck(function, inputs, atol=1e-4, fast_mode=True)


def _scalar(outputs: tuple[Any, Any]) -> Any:
    x, log_det = outputs
    weights = torch.linspace(-1, 2, x.numel(), dtype=x.dtype).reshape(x.shape)
    return (weights * x * x).sum() + (log_det * torch.arange(len(log_det))).sum()


def test_func_grad_jvp_vmap(layer_name: str, torch_layer: Build) -> None:
    layer, x = torch_layer(layer_name)
    for direction in ("forward", "inverse"):
        function, parameters = as_function(layer, direction)
        values = [p.detach() for p in parameters.values()]
        dots = [torch.randn_like(v) for v in (x, *values)]

        def total(x: Any, *values: Any, function: Any = function) -> Any:
            return _scalar(function(x, *values))

        every = tuple(range(len(values) + 1))
        grads = torch.func.grad(total, argnums=every)(x, *values)
        leaves = [v.clone().requires_grad_() for v in (x, *values)]
        expected = torch.autograd.grad(total(*leaves), leaves)
        for a, b in zip(grads, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        _, slope = torch.func.jvp(total, (x, *values), tuple(dots))
        pairing = sum((g * d).sum() for g, d in zip(grads, dots, strict=True))
        torch.testing.assert_close(slope, pairing, rtol=1e-8, atol=1e-8)

        images = torch.stack([x, 2 * x, x.flip(0)])
        several = [torch.stack([v, 0.9 * v, 1.1 * v]) for v in values]
        for mapped in (several, values):
            in_dims = (0, *(0 if mapped is several else None for _ in values))
            got, log_dets = torch.func.vmap(function, in_dims)(images, *mapped)
            for i in range(3):
                own = [v[i] for v in mapped] if mapped is several else mapped
                wanted, log_det = function(images[i], *own)
                torch.testing.assert_close(got[i], wanted, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(log_dets[i], log_det, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["autoregressive-2d", "emerging-3d", "periodic-2d"])
def test_an_inverse_keeps_one_image(name: str, torch_layer: Build) -> None:
    """For the backward pass: not one for every wavefront, as autograd through the solve would."""
    layer, x = torch_layer(name, grid_factor=4)
    x = x.repeat(20, *[1] * (x.ndim - 1)).requires_grad_()
    kept: dict[int, int] = {}

    def pack(t: Any) -> Any:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y, _ = layer.inverse(x)
    steps = 2 if name.startswith("emerging") else 1
    assert sum(kept.values()) <= 1.3 * steps * y.numel() * y.element_size()


@pytest.mark.parametrize("name", ["plain", "periodic-2d"])
def test_log_determinants_have_second_derivatives_in_every_order_of_modes(
    name: str, torch_layer: Build
) -> None:
    """PyTorch's slogdet gives zero for reverse over forward mode."""
    layer, x = torch_layer(name)
    key, weight = next((n, p.detach()) for n, p in layer.named_parameters() if n != "bias")
    v = torch.randn_like(weight)

    def log_det(w: Any) -> Any:
        return functional_call(layer, {key: w}, (x,))[1].sum()

    hessian = torch.autograd.functional.hessian(log_det, weight)
    expected = (hessian * v).sum(tuple(range(weight.ndim, 2 * weight.ndim)))
    found = torch.func.grad(lambda w: torch.func.jvp(log_det, (w,), (v,))[1])(weight)
    torch.testing.assert_close(found, expected)
    found = torch.func.jvp(torch.func.grad(log_det), (weight,), (v,))[1]
    torch.testing.assert_close(found, expected)


@directions
@pytest.mark.parametrize("name", ["autoregressive-2d", "qr"])
def test_forward_mode_of_forward_mode_is_refused(
    name: str, direction: str, torch_layer: Build
) -> None:
    """PyTorch would drop derivatives without a word."""
    layer, x = torch_layer(name)
    f, _ = as_function(layer, direction)

    def once(x: Any) -> Any:
        return torch.func.jvp(lambda x: f(x, *layer.parameters())[0], (x,), (x,))[1]

    with pytest.raises(NotImplementedError, match="use jacfwd of jacrev"):
        torch.func.jvp(once, (x,), (x,))
