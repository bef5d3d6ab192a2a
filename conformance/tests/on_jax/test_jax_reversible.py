"""JAX chains without stored activations: the stored version's gradients, in less memory."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax as ij
from tests.selected import slow

SHAPE = (4, 4, 5)  # C = H


def loss_of(outputs: tuple[Any, Any]) -> Any:
    z, log_det = outputs
    return (z**3).sum() - (log_det * log_det).sum()


@functools.cache
def jax_chains() -> dict[str, ic.Chain]:
    keys = iter(jax.random.split(jax.random.key(0), 32))

    def init(cls: Any, *args: Any, **settings: Any) -> Any:
        return ij.init(next(keys), cls, 4, *args, dtype="float64", **settings)

    kinds = ic.ActNorm, ic.PLUConv1x1, ic.PeriodicConv
    kernel = 0.1 * jax.random.normal(next(keys), (4, 4, 2, 2), "float64")
    kernel = kernel.at[:, :, 0, 0].set(jnp.eye(4))
    twice = (ic.AutoregressiveConv(kernel, direction=sign) for sign in (-1, 1))
    unlike = init(ic.QRConv1x1), init(ic.AutoregressiveConv, 3), init(ic.PLUConv1x1)
    return {
        "alike": ic.Chain([init(ic.EmergingConv) for _ in range(3)]),
        "sizes": ic.Chain([init(ic.EmergingConv, k) for k in (1, 3)]),
        "alike chains": ic.Chain([ic.Chain(list(map(init, kinds))) for _ in range(3)]),
        "unlike": ic.Chain(unlike),
        "one": ic.Chain([init(ic.Conv1x1)]),
        "tied": ic.Chain([ic.EmergingConv(*twice)]),
    }


@pytest.mark.parametrize(
    "name", ["alike", "unlike", "tied", *map(slow, ("sizes", "alike chains", "one"))]
)
def test_jax_gradients_are_those_of_the_stored_version(name: str) -> None:
    """Whatever the batch axes; C = H, so that no axis passes for another one."""
    chain = jax_chains()[name]
    batches = [(), (2, 3)] if name == "unlike" else [(2,)]
    for batch in batches:
        x = jax.random.normal(jax.random.key(1), (*batch, *SHAPE), "float64")

        def both(flow: Any, x: Any) -> Any:
            outputs = flow.forward_and_log_det(x)
            return loss_of(outputs), outputs

        grad = jax.jit(jax.grad(both, argnums=(0, 1), allow_int=True, has_aux=True))
        (expected, x_bar), outputs = grad(chain, x)
        (found, found_x_bar), found_outputs = grad(ij.reversible(chain, SHAPE[1:]), x)
        ours = *found.chain.parameters().values(), found_x_bar, *found_outputs
        theirs = *expected.parameters().values(), x_bar, *outputs
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_jax_an_input_of_any_size_has_a_gradient() -> None:
    """Zero too, of which rounding leaves something else, and numbers whose squares overflow."""
    rng = np.random.default_rng(0)
    step = ic.AutoregressiveConv.init(3, rng=rng).replace(bias=np.ones(3) / 3)
    chain = ic.Chain([step] * 4).asarrays(jnp.zeros(0, "float32"))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
    slopes = jax.jit(jax.grad(lambda flow, x: flow.forward_and_log_det(x)[0].sum()))
    for scale in (0.0, 1e-30, 1e25):
        x = jnp.full((2, 3, 8, 8), scale, "float32")
        jax.tree.map(close, slopes(ij.reversible(chain, (8, 8)), x).chain, slopes(chain, x))


def test_jax_of_lost_images_alone_the_gradients_are_no_numbers() -> None:
    """Of an image that is small beside what is added to it and taken away again."""
    steps = (ic.ActNorm(np.zeros(1), np.full(1, shift)) for shift in (1e5, -1e5))
    chain = ic.Chain(list(steps)).asarrays(jnp.zeros(0, "float32"))
    flow = ij.reversible(chain, (4, 5))
    x = jax.random.normal(jax.random.key(0), (2, 1, 4, 5), "float32").at[0].multiply(0.01)
    given, x_bar = jax.grad(lambda f, x: f.forward_and_log_det(x)[0].sum(), (0, 1))(flow, x)
    assert jnp.isnan(x_bar).all((1, 2, 3)).tolist() == [True, False]
    assert (x_bar[1] == 1).all()
    assert all(jnp.isnan(a).all() for a in jax.tree.leaves(given))


@pytest.mark.slow
def test_jax_memory_does_not_grow_with_depth() -> None:
    x = jnp.ones((8, 3, 32, 32), "float32")

    def planned(depth: int, wrap: Callable[[ic.Chain], Any]) -> int:
        keys = jax.random.split(jax.random.key(0), depth)
        chain = ic.Chain([ij.init(key, ic.EmergingConv, 3, dtype="float32") for key in keys])

        def loss(flow: Any, x: Any) -> Any:
            return loss_of(flow.forward_and_log_det(x))

        run = jax.jit(jax.grad(loss)).lower(wrap(chain), x).compile()
        return int(run.memory_analysis().temp_size_in_bytes)

    ours = [planned(depth, lambda chain: ij.reversible(chain, (32, 32))) for depth in (3, 24)]
    assert ours[1] < 1.05 * ours[0]
    assert planned(12, lambda chain: chain) > 2 * ours[1]
