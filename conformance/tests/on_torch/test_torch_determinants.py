"""log|det A| and A^-1 by what never waits for a device, in layers too, and their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import invconv_torch as it
from invconv_torch import primitives
from invconv_torch.native.determinants import inverse_or_nan

Build = Callable[..., tuple[Any, Any]]
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
kinds = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])


def matrices(dtype: Any, *shape: int) -> Any:
    torch.manual_seed(0)
    found = torch.randn(*shape, 3, 3, dtype=dtype) + 2 * torch.eye(3, dtype=dtype)
    return found.requires_grad_()


@kinds
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)], ids=str)
def test_derivatives_are_those_of_finite_differences(dtype: Any, shape: tuple[int, ...]) -> None:
    a = matrices(dtype, *shape)
    expected = np.linalg.slogdet(a.detach().numpy())[1]
    np.testing.assert_allclose(primitives.log_abs_det(a).detach(), expected, rtol=1e-13)
    for function in (primitives.log_abs_det, inverse_or_nan):
        assert torch.autograd.gradcheck(function, a)
        assert torch.autograd.gradgradcheck(function, a)


@kinds
def test_traced_and_mapped_and_forward_mode(dtype: Any) -> None:
    a, v = matrices(dtype, 4).detach(), matrices(dtype, 4).detach().flip(0)

    def total(a: Any) -> Any:
        return primitives.log_abs_det(a).sum()

    wanted = np.linalg.inv(a.numpy()).conj().swapaxes(1, 2)
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    leaf = a.clone().requires_grad_()
    found = torch.func.grad(total)(a), torch.func.vmap(torch.func.grad(total))(a)
    for gradient in (*found, *torch.autograd.grad(compiled(leaf), leaf)):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-11, atol=1e-11)
    value, slope = torch.func.jvp(total, (a,), (v,))
    np.testing.assert_allclose(value, np.linalg.slogdet(a.numpy())[1].sum(), rtol=1e-13)
    np.testing.assert_allclose(slope, (wanted.conj() * v.numpy()).sum().real, rtol=1e-11)


@kinds
def test_a_zero_pivot_is_minus_infinity_and_its_inverse_nan(dtype: Any) -> None:
    a = matrices(dtype, 3).detach()
    a[1, :, 1] = 0
    found = primitives.log_abs_det(a)
    assert found.isneginf().tolist() == [False, True, False]
    inverses = inverse_or_nan(a)
    assert inverses.isnan().flatten(1).all(1).tolist() == [False, True, False]
    assert inverses[::2].isfinite().all()
    a = a.requires_grad_()
    (grad,) = torch.autograd.grad(primitives.log_abs_det(a).sum(), a)
    assert grad.isfinite().flatten(1).all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("name", ["plain", "periodic-2d"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_half_types_have_log_dets_and_gradients_of_float32(
    name: str, dtype: Any, torch_layer: Build
) -> None:
    layer, x = torch_layer(name, dtype=dtype)
    exact, y = torch_layer(name, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    log_det, expected = layer(x)[1], exact(y)[1]
    assert log_det.dtype == torch.float32
    torch.testing.assert_close(log_det.double(), expected, rtol=1e-5, atol=1e-5)
    key = next(n for n, _ in layer.named_parameters() if n != "bias")
    found, wanted = (
        torch.autograd.grad(value.sum(), dict(of.named_parameters())[key])[0]
        for of, value in ((layer, log_det), (exact, expected))
    )
    assert found.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), wanted, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 0.0, math.nan, math.inf])
def test_log_determinants_of_any_size(scale: float, dtype: torch.dtype) -> None:
    """Products of pivots may leave the range where the sum of their logarithms does not."""
    torch.manual_seed(0)
    layer = it.AutoregressiveConv2d(30, dtype=dtype)
    with torch.no_grad():
        layer.kernel[..., 0, 0] *= scale
        log_det = layer(torch.zeros(1, 30, 2, 2, dtype=dtype))[1]
    pivots = layer.kernel.detach()[..., 0, 0].diagonal().double()
    expected = (4 * pivots.abs().log().sum()).to(dtype).expand(1)
    torch.testing.assert_close(log_det, expected, rtol=1e-6, atol=1e-5, equal_nan=True)


def test_an_image_that_is_not_finite_spoils_no_gradient_of_the_log_determinant() -> None:
    torch.manual_seed(0)
    layer = it.EmergingConv2d(2)
    x = torch.full((1, 2, 3, 3), torch.inf)
    layer(x)[1].sum().backward()
    expected = 9 / layer.first.kernel.detach()[..., 0, 0].diagonal()
    found = layer.first.kernel.grad
    torch.testing.assert_close(found[..., 0, 0].diagonal(), expected)
    assert torch.count_nonzero(found) == 2


def test_a_singular_layer_has_a_gradient_and_no_exception() -> None:
    layer = it.EmergingConv2d(2)
    with torch.no_grad():
        layer.first.kernel[0, 0, 0, 0] = 0.0
    z, log_det = layer(torch.randn(1, 2, 3, 3))
    assert log_det.item() == -math.inf
    (z.sum() + log_det.sum()).backward()
    assert layer.first.kernel.grad[0, 0, 0, 0].isinf()


def test_an_image_that_has_left_a_transform_has_gradients() -> None:
    layer, x, left = it.EmergingConv2d(3), torch.randn(1, 3, 4, 4, requires_grad=True), []

    def keep(t: Any) -> Any:
        left.append(t)
        return t.sum()

    torch.func.grad(keep)(x)
    given, found = [x, *layer.parameters()], []
    for image in (x, left[0]):
        found.append(torch.autograd.grad(layer(image)[0].square().sum(), given))
    assert all(map(torch.equal, *found))
