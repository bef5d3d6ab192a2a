"""JAX chains without stored activations: the stored version's gradients, in less memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax as ij

jax.config.update("jax_enable_x64", True)

SHAPE = (2, 4, 6, 5)


def loss_of(outputs: tuple[Any, Any]) -> Any:
    z, log_det = outputs
    return (z**3).sum() - (log_det * log_det).sum()


def untyped(value: Any) -> Any:
    """Return what type checkers would refuse."""
    return value


def test_jax_gradients_of_an_array_that_is_used_twice() -> None:
    kernel = 0.1 * jax.random.normal(jax.random.key(0), (2, 2, 2, 2), "float64")
    kernel = kernel.at[:, :, 0, 0].set(jnp.eye(2))
    there = ic.AutoregressiveConv(kernel, direction=-1)
    step = ic.EmergingConv(there, ic.AutoregressiveConv(kernel))
    x = jax.random.normal(jax.random.key(1), (2, 2, 5, 5), "float64")

    def loss(flow: Any) -> Any:
        return loss_of(flow.forward_and_log_det(x))

    grad = jax.jit(jax.grad(loss))
    chain = ic.Chain([step])
    expected = grad(chain).parameters()
    found = grad(ij.reversible(chain, (5, 5))).chain.parameters()
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-9)


@functools.cache
def jax_chains() -> dict[str, ic.Chain]:
    keys = iter(jax.random.split(jax.random.key(0), 32))

    def init(cls: Any, *args: Any, **settings: Any) -> Any:
        return ij.init(next(keys), cls, 4, *args, dtype="float64", **settings)

    return {
        "alike": ic.Chain([init(ic.EmergingConv) for _ in range(3)]),
        "alike chains": ic.Chain(
            [
                ic.Chain([init(ic.ActNorm), init(ic.PLUConv1x1), init(ic.PeriodicConv)])
                for _ in range(3)
            ]
        ),
        "unlike": ic.Chain(
            [init(ic.QRConv1x1), init(ic.AutoregressiveConv, 3), init(ic.PLUConv1x1)]
        ),
        "one": ic.Chain([init(ic.Conv1x1)]),
    }


@pytest.mark.parametrize("name", ["alike", "alike chains", "unlike", "one"])
def test_jax_gradients_are_those_of_the_stored_version(name: str) -> None:
    chain = jax_chains()[name]
    x = jax.random.normal(jax.random.key(1), SHAPE, "float64")

    def loss(flow: Any, x: Any) -> Any:
        return loss_of(flow.forward_and_log_det(x))

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))
    expected = grad(chain, x)
    found = grad(ij.reversible(chain, SHAPE[2:]), x)
    named = expected[0].parameters()
    assert found[0].chain.parameters().keys() == named.keys()
    for key, gradient in found[0].chain.parameters().items():
        np.testing.assert_allclose(gradient, named[key], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_jax_batch_axes_are_those_of_the_chain(batch: tuple[int, ...]) -> None:
    """C = H: a 1x1 alone could not tell which axis is which."""
    chain = jax_chains()["unlike"]
    x = jnp.asarray(np.random.default_rng(1).standard_normal((*batch, 4, 4, 5)))
    for got, expected in zip(
        ij.reversible(chain, (4, 5)).forward_and_log_det(x),
        chain.forward_and_log_det(x),
        strict=True,
    ):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e25])
def test_jax_an_input_of_any_size_has_a_gradient(scale: float) -> None:
    """Zero too, of which rounding leaves something else, and numbers whose squares overflow."""
    rng = np.random.default_rng(0)
    step = ic.AutoregressiveConv.init(3, rng=rng).replace(bias=np.ones(3) / 3)
    chain = ic.Chain([step] * 4).asarrays(jnp.zeros(0, "float32"))
    x = jnp.full((2, 3, 8, 8), scale, "float32")

    def loss(flow: Any) -> Any:
        return flow.forward_and_log_det(x)[0].sum()

    got, expected = jax.grad(loss)(ij.reversible(chain, (8, 8))).chain, jax.grad(loss)(chain)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_jax_memory_does_not_grow_with_depth() -> None:
    def planned(depth: int, wrap: Callable[[ic.Chain], Any]) -> int:
        keys = jax.random.split(jax.random.key(0), depth)
        chain = ic.Chain([ij.init(key, ic.EmergingConv, 3, dtype="float32") for key in keys])

        def loss(flow: Any, x: Any) -> Any:
            return loss_of(flow.forward_and_log_det(x))

        x = jnp.ones((8, 3, 32, 32), "float32")
        run = jax.jit(jax.grad(loss)).lower(wrap(chain), x).compile()
        return int(run.memory_analysis().temp_size_in_bytes)

    ours = [planned(depth, lambda chain: ij.reversible(chain, (32, 32))) for depth in (3, 12)]
    assert ours[1] < 1.05 * ours[0]
    assert planned(12, lambda chain: chain) > 2 * ours[1]


def one() -> Any:
    return jax_chains()["one"]


REFUSED: dict[str, Callable[[], Any]] = {
    "chain: expected an invconv.Chain, got list": lambda: ij.reversible(untyped([]), (4,)),
    "chain: expected arrays of JAX, got .* numpy as 0.log_scale": lambda: ij.reversible(
        ic.Chain([ic.ActNorm.init(2)]), (4,)
    ),
    "spatial_shape: expected a tup": lambda: ij.reversible(one(), untyped(4)),
    "got a traced 0.weight; call this outside jit": lambda: jax.jit(
        lambda c: ij.reversible(c, (4, 4)).chain
    )(one()),
    r"expected the grid \(4, 4\) on which this chain was judged, got \(5, 4\)": lambda: (
        ij.reversible(one(), (4, 4)).forward_and_log_det(jnp.zeros((1, 4, 5, 4)))
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_reversed_is_refused(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        REFUSED[message]()
