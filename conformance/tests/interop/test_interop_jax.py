"""The drop-ins for JAX's flow libraries, in the real packages, against dense matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
import invconv_jax
from invconv_jax import interop
from tests.interop.peers.jax_flows import JAX as LIBRARIES
from tests.selected import installed

jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.usefixtures("quick_compilation")

every_library = pytest.mark.parametrize("library", installed(LIBRARIES))


def normal(seed: int, *shape: int) -> Any:
    return jax.random.normal(jax.random.key(seed), shape)


@every_library
def test_a_drop_in_is_a_tree_of_the_operators_arrays(library: str) -> None:
    event = (2, 4)
    conv = invconv_jax.init(jax.random.key(0), ic.AutoregressiveConv, 2, ndim=1, mask="raster")
    part = LIBRARIES[library](conv, event).part
    leaves, structure = jax.tree.flatten(part)
    assert [id(leaf) for leaf in leaves] == [id(leaf) for leaf in jax.tree.leaves(conv)]
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(part)
    assert jax.tree.structure(again) == structure
    doubled = jax.tree.map(lambda a: 2 * a, part)  # K and b twice
    np.testing.assert_allclose(
        doubled.conv.forward(normal(0, 1, *event)), 2 * conv.forward(normal(0, 1, *event))
    )
    assert not any(jax.tree.leaves(jax.tree.map(lambda leaf: False, part)))  # masks, as optax has
    x = jnp.zeros(event)
    runs: dict[str, Callable[[Any, Any], Any]] = {
        "bijx": lambda part, x: part.reverse(x, 0.0)[0],
        "distrax": lambda part, x: part.inverse(x),
        "flowjax": lambda part, x: part.inverse(x),
        "numpyro": lambda part, x: part._inverse(x),
    }
    got = jax.jit(runs[library])(part, x)
    np.testing.assert_allclose(got, conv.forward(x))


@every_library
def test_channels_last_and_reversible(library: str) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    chain = ic.Chain([invconv_jax.init(key, ic.EmergingConv, 2) for key in keys])
    x = normal(0, 5, 2, 4, 4)
    expected = jax.jit(LIBRARIES[library](chain, (2, 4, 4)).log_prob)(x)
    kept = LIBRARIES[library](invconv_jax.reversible(chain, (4, 4)), (2, 4, 4))
    np.testing.assert_allclose(jax.jit(kept.log_prob)(x), expected)
    last = LIBRARIES[library](invconv_jax.channels_last(chain), (4, 4, 2))
    np.testing.assert_allclose(jax.jit(last.log_prob)(jnp.moveaxis(x, 1, -1)), expected)


@every_library
def test_the_number_of_axes(library: str) -> None:
    emerging = invconv_jax.init(jax.random.key(0), ic.EmergingConv, 3)
    with pytest.raises(ValueError, match="ndim: expected the operator's, 2, got 1"):
        LIBRARIES[library](emerging, (3, 4))
    mixing = invconv_jax.init(jax.random.key(0), ic.QRConv1x1, 3)
    vectors = LIBRARIES[library](mixing, (3,))
    assert vectors.log_prob(normal(0, 4, 3)).shape == (4,)
    with pytest.raises((TypeError, ValueError, AssertionError)):  # the last is bijx's prior's
        vectors.log_prob(normal(0, 4, 2))


@pytest.mark.parametrize("name", interop.__all__)
def test_what_is_no_operator_is_refused_at_once(name: str) -> None:
    refused: list[Any] = [3, [], torch.nn.Identity()]
    for wrong in refused:
        arguments = ((3, 4, 4),) if name == "FlowjaxBijection" else ()
        more = {} if name == "FlowjaxBijection" else {"ndim": 2}
        with pytest.raises(TypeError, match="conv: expected an operator of invconv, got"):
            getattr(interop, name)(wrong, *arguments, **more)


def test_a_shape_that_is_not_the_operators_is_refused_at_once() -> None:
    conv = invconv_jax.init(jax.random.key(0), ic.EmergingConv, 2)
    with pytest.raises(ValueError, match=r"shape: expected .* 2 channels, got"):
        interop.FlowjaxBijection(conv, (3, 4, 4))
    refused: list[Any] = [5, (), (2, 4.0, 4), None]
    for wrong in refused:
        with pytest.raises(TypeError, match="shape: expected"):
            interop.FlowjaxBijection(conv, wrong)
