"""Operators in JAX at the edges: nothing is promoted, far taps cost nothing, constants decay."""

from __future__ import annotations

from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax

jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("mask", ["corner", "raster"])
@pytest.mark.parametrize("x64", [False, True])
def test_nothing_is_promoted(x64: bool, mask: str) -> None:
    conv = ic.AutoregressiveConv.init(2, 3, mask=mask, rng=np.random.default_rng(0))
    y = np.random.default_rng(1).standard_normal((2, 2, 5, 6)).astype(np.float32)
    strict = (jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"))
    with jax.enable_x64(x64), strict[0], strict[1]:
        x = jax.jit(lambda conv, y: conv.inverse(y))(conv.asarrays(y), jnp.asarray(y))
    assert x.dtype == np.float32
    np.testing.assert_allclose(conv.forward(np.asarray(x, float)), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_weight_decay_does_not_reach_the_sign_of_plu(name: str) -> None:
    optax, equinox = pytest.importorskip("optax"), pytest.importorskip("equinox")
    conv = invconv_jax.init(jax.random.key(0), ic.PLUConv1x1, 3, dtype="float32")
    optimiser = getattr(optax, name)(1e-2, weight_decay=0.5)
    x = jax.random.normal(jax.random.key(1), (16, 3, 8, 8), "float32")

    def loss(conv: Any) -> Any:
        z, log_det = conv.forward_and_log_det(x)
        return ((z**2).sum() / 2 - log_det.sum()) / x.size

    def step(conv: Any, state: Any) -> Any:
        gradient, trained = (
            equinox.filter_grad(loss)(conv),
            equinox.filter(conv, equinox.is_inexact_array),
        )
        updates, state = optimiser.update(gradient, state, trained)
        return equinox.apply_updates(conv, updates), state

    state, compiled = optimiser.init(equinox.filter(conv, equinox.is_inexact_array)), jax.jit(step)
    for _ in range(40):
        conv, state = compiled(conv, state)
    assert abs(conv.sign).max() < 0.9, "the optimiser was meant to reach it"
    units = jnp.eye(3, dtype="float32")[:, :, None]
    matrix = np.asarray((conv.forward(units) - conv.forward(0 * units))[:, :, 0], float)
    right = np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(conv.log_det((1,)), right, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(conv.inverse(conv.forward(x)), x, rtol=0, atol=1e-4)
