"""log|det A| and A^-1 by what never waits for a device, in layers too, and their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

import invconv_torch as it
from invconv_torch import primitives
from invconv_torch.native.matrices import inverse_or_nan

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


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("layer_name", ["autoregressive-1d", "periodic-1d", "plain", "qr", "plu"])
def test_vectorized_jacobians(direction: str, layer_name: str, torch_layer: Build) -> None:
    layer, x = torch_layer(layer_name)
    x = x[:1]

    def cubes(z: Any) -> Any:
        return (getattr(layer, direction)(z)[0] ** 3).flatten()

    def slope(z: Any, vectorize: bool) -> Any:
        return jacobian(cubes, z, create_graph=True, vectorize=vectorize)

    torch.testing.assert_close(slope(x, True), slope(x, False))
    of_sum = [hessian(lambda z: cubes(z).sum(), x, vectorize=v) for v in (True, False)]
    torch.testing.assert_close(*of_sum)
    assert of_sum[1].abs().max() > 1e-3  # there is something to compare
    # one level of vmap inside another
    nested = [jacobian(lambda z, v=v: slope(z, v)[:2], x, vectorize=v) for v in (True, False)]
    torch.testing.assert_close(*nested)
