"""Operators trained by the JAX libraries that people use: plain optax, equinox, Flax NNX."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax

STEPS, RATE = 12, 1e-2


def require(name: str) -> Any:
    """Import a library, or skip the test and say that it is not installed."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    return importlib.import_module(name)


def images() -> Any:
    """Return correlated images that are far from standard normal."""
    noise = np.random.default_rng(0).standard_normal((16, 3, 9, 9))
    return jnp.asarray(2 * (noise[:, :, 1:, 1:] + noise[:, :, :-1, :-1]) + 1, "float32")


def flow(key: Any) -> ic.Chain:
    keys = jax.random.split(key, 3)
    return ic.Chain(
        [
            invconv_jax.init(keys[0], ic.ActNorm, 3, dtype="float32"),
            invconv_jax.init(keys[1], ic.PLUConv1x1, 3, dtype="float32"),
            invconv_jax.init(keys[2], ic.EmergingConv, 3, dtype="float32"),
        ]
    )


def loss(conv: ic.Chain, x: Any) -> Any:
    """Return the mean negative log-likelihood a dimension, up to a constant."""
    z, log_det = conv.forward_and_log_det(x)
    return (0.5 * (z * z).sum() - log_det.sum()) / x.size


def check(losses: list[float], before: ic.Chain, after: ic.Chain) -> None:
    """Assert that the loss falls, the operator inverts, and constants stay as they were."""
    assert all(b < a for a, b in itertools.pairwise(losses)), losses
    assert losses[-1] < losses[0] - 0.5
    x = images()
    np.testing.assert_allclose(after.inverse(after.forward(x)), x, rtol=0, atol=1e-4)
    first, second = before.steps[1], after.steps[1]
    assert isinstance(first, ic.PLUConv1x1)
    assert isinstance(second, ic.PLUConv1x1)
    np.testing.assert_array_equal(first.sign, second.sign)
    np.testing.assert_array_equal(first.permutation, second.permutation)


def test_plain_optax_trains_the_parameters() -> None:
    optax = require("optax")
    x, conv = images(), flow(jax.random.key(0))
    optimiser = optax.adam(RATE)

    @jax.jit  # type: ignore[untyped-decorator]
    def step(parameters: Any, state: Any) -> Any:
        value, gradient = jax.value_and_grad(lambda p: loss(conv.replace(**p), x))(parameters)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, value

    parameters, losses = conv.parameters(), []
    state = optimiser.init(parameters)
    for _ in range(STEPS):
        parameters, state, value = step(parameters, state)
        losses.append(float(value))
    check(losses, conv, conv.replace(**parameters))


def test_plain_optax_trains_an_operator_as_a_tree() -> None:
    """Without integers among its leaves it needs nothing else."""
    optax = require("optax")
    x = images()
    conv = invconv_jax.init(jax.random.key(0), ic.EmergingConv, 3, dtype="float32")
    optimiser = optax.adam(RATE)

    @jax.jit  # type: ignore[untyped-decorator]
    def step(conv: Any, state: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(conv, x)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(conv, updates), state, value

    state, losses = optimiser.init(conv), []
    for _ in range(STEPS):
        conv, state, value = step(conv, state)
        losses.append(float(value))
    assert all(b < a for a, b in itertools.pairwise(losses)), losses


def test_an_equinox_module_trains() -> None:
    eqx, optax = require("equinox"), require("optax")

    class Model(eqx.Module):  # type: ignore[misc,name-defined]
        conv: ic.Chain

        def __call__(self, x: Any) -> Any:
            return loss(self.conv, x)

    x, model = images(), Model(flow(jax.random.key(0)))
    before, optimiser = model.conv, optax.adam(RATE)

    @eqx.filter_jit  # type: ignore[untyped-decorator]
    def step(model: Any, state: Any) -> Any:
        value, gradient = eqx.filter_value_and_grad(lambda model: model(x))(model)
        updates, state = optimiser.update(gradient, state)
        return eqx.apply_updates(model, updates), state, value

    state, losses = optimiser.init(eqx.filter(model, eqx.is_inexact_array)), []
    for _ in range(STEPS):
        model, state, value = step(model, state)
        losses.append(float(value))
    check(losses, before, model.conv)


def test_a_flax_nnx_module_trains() -> None:
    """The leaves of an operator become NNX parameters, and arrays again where it is used."""
    require("flax")
    optax, nnx = require("optax"), importlib.import_module("flax.nnx")

    def variable(leaf: Any) -> Any:
        trained = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return nnx.Param(leaf) if trained else nnx.Variable(leaf)

    class Model(nnx.Module):  # type: ignore[misc,name-defined]
        def __init__(self, rngs: Any) -> None:
            self.variables = nnx.data(jax.tree.map(variable, flow(rngs.params())))

        @property
        def conv(self) -> ic.Chain:
            is_leaf = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
            conv: ic.Chain = jax.tree.map(lambda v: v[...], self.variables, is_leaf=is_leaf)
            return conv

        def __call__(self, x: Any) -> Any:
            return loss(self.conv, x)

    x, model = images(), Model(nnx.Rngs(0))
    before, optimiser = model.conv, nnx.Optimizer(model, optax.adam(RATE), wrt=nnx.Param)

    @nnx.jit  # type: ignore[untyped-decorator]
    def step(model: Any, optimiser: Any) -> Any:
        value, gradient = nnx.value_and_grad(lambda model: model(x))(model)
        optimiser.update(model, gradient)
        return value

    losses = [float(step(model, optimiser)) for _ in range(STEPS)]
    check(losses, before, model.conv)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_weight_decay_does_not_reach_the_sign_of_plu(name: str) -> None:
    optax, equinox = require("optax"), require("equinox")
    conv = invconv_jax.init(jax.random.key(0), ic.PLUConv1x1, 3, dtype="float32")
    optimiser = getattr(optax, name)(1e-2, weight_decay=0.5)
    x = images()

    def step(conv: Any, state: Any) -> Any:
        def loss(conv: Any) -> Any:
            z, log_det = conv.forward_and_log_det(x)
            return ((z**2).sum() / 2 - log_det.sum()) / x.size

        gradient = equinox.filter_grad(loss)(conv)
        updates, state = optimiser.update(
            gradient, state, equinox.filter(conv, equinox.is_inexact_array)
        )
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
