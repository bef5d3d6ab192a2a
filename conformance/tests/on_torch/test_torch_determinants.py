"""log|det A| and A^-1 by what never waits for a device, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

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
