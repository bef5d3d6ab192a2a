"""Data-dependent initialisation of actnorm in every library, and the flag of torch's layer."""

import copy
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
import invconv_jax  # noqa: F401 - operators become pytrees
import invconv_torch as it

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


def test_half_types_are_measured_in_float32() -> None:
    x = torch.as_tensor(images() - MEAN[:, None, None], dtype=torch.bfloat16)
    conv = ic.ActNorm.init(3, like=x).initialize(x)
    assert conv.log_scale.dtype == torch.bfloat16
    expected = -x.float().std((0, 2, 3), correction=0).log()
    torch.testing.assert_close(conv.log_scale, expected.bfloat16(), rtol=0.01, atol=0)


def test_channels_that_do_not_vary_are_refused() -> None:
    for bad in (0.0, np.nan):
        x = images()
        x[:, 1] = bad
        with pytest.raises(ValueError, match=r"x: expected images that vary in every channel"):
            ic.ActNorm.init(3).initialize(x)
        layer = it.ActNorm(3, dtype=torch.float64)
        with pytest.raises(ValueError, match="vary in every channel"):
            layer.initialize(torch.as_tensor(x))
        assert not layer.initialized
        assert not layer.log_scale.any()


def test_a_layer_is_initialized_once_and_says_so_in_its_state() -> None:
    layer, x = it.ActNorm(3, dtype=torch.float64), torch.as_tensor(images())
    layer.eval()
    layer.inverse(x)  # remembered, and to be forgotten
    layer.initialize(x)
    torch.testing.assert_close(layer(x)[0].mean((0, 2, 3)), torch.zeros(3).double())
    torch.testing.assert_close(layer.inverse(layer(x)[0])[0], x)
    assert all(p.requires_grad and p.grad is None for p in layer.parameters())
    resumed = it.ActNorm(3, dtype=torch.float64)
    resumed.load_state_dict(layer.state_dict())
    for other in (layer, resumed, copy.deepcopy(layer)):
        other.initialize(torch.as_tensor(7 * images(1)))
        torch.testing.assert_close(other(x)[0], layer(x)[0])
    layer.reset_parameters()
    assert not layer.initialized
    assert torch.equal(layer(x)[0], x)
