"""Random operators from a JAX key: what `invconv_jax.init` draws, takes and refuses."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax
from invconv.operators.base.register import own_operators

jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES = [cls for cls in own_operators() if hasattr(cls, "init")]
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


@every_class
def test_init_depends_on_the_key_alone(cls: Any) -> None:
    key = jax.random.key(3)
    conv = invconv_jax.init(key, cls, 4)
    again = invconv_jax.init(jax.random.key(3), cls, 4)
    traced = jax.jit(lambda key: invconv_jax.init(key, cls, 4))(key)
    raw = invconv_jax.init(jax.random.key_data(key), cls, 4)
    for other in (again, traced, raw):
        assert type(other) is cls
        for a, b in zip(jax.tree.leaves(conv), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)
    different = jax.tree.leaves(invconv_jax.init(jax.random.key(4), cls, 4))
    alike = [bool((a == b).all()) for a, b in zip(jax.tree.leaves(conv), different, strict=True)]
    assert all(alike) == (cls is ic.ActNorm)


def test_init_passes_settings_on() -> None:
    conv = invconv_jax.init(
        jax.random.key(0), ic.AutoregressiveConv, 2, 3, ndim=3, mask="raster", dtype="bfloat16"
    )
    assert conv.kernel.shape == (2, 2, 3, 5, 5)
    assert conv.kernel.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"use jax\.vmap"):
        invconv_jax.init(jax.random.split(jax.random.key(0)), ic.Conv1x1, 2)


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        (("ActNorm", 3), {}, TypeError, "cls: expected a class of invconv with an init, got 'A"),
        ((ic.Chain, 3), {}, TypeError, "cls: expected a class of invconv"),
        ((ic.ActNorm, 3), {"rng": np.random.default_rng(0)}, TypeError, "come from the key"),
        ((ic.ActNorm, 3), {"like": jnp.zeros(0, jnp.bfloat16)}, TypeError, "dtype= says"),
        ((ic.ActNorm, 3), {"dtype": "int32"}, TypeError, "expected a real floating dtype"),
    ],
)
def test_init_says_what_it_takes(arguments: Any, settings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        invconv_jax.init(jax.random.key(0), *arguments, **settings)


def test_init_promotes_nothing_silently() -> None:
    with jax.enable_x64(False), pytest.raises(ValueError, match="dtype: JAX has no float64 here"):
        invconv_jax.init(jax.random.key(0), ic.ActNorm, 3, dtype="float64")
