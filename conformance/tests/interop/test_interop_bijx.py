"""bijx: its free field theory is a periodic convolution; constants and states."""

from __future__ import annotations

from importlib.util import find_spec

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax
from invconv_jax import interop

jax.config.update("jax_enable_x64", True)

# bijx is imported where it is used: it takes 1.6 s and 90 MB of every process that looks for tests
pytestmark = pytest.mark.skipif(find_spec("bijx") is None, reason="bijx is not installed")

GRID = (4, 6)


def test_the_free_field_is_a_periodic_convolution() -> None:
    """K^T K = m2 - Laplacian for a 1-D kernel, so that bijx's own free theory is the same flow."""
    import bijx

    m2 = 0.7
    # (a - b shift)(a - b shift^-1) = a^2 + b^2 - a b (shift + shift^-1) = m2 + 2 - shift - shift^-1
    a = np.roots([1.0, 0.0, -(m2 + 2.0), 0.0, 1.0]).real.max()
    conv = ic.PeriodicConv(jnp.asarray([[[a, -1 / a]]]))
    part = interop.BijxBijection(conv)
    ours = bijx.Transformed(
        bijx.IndependentNormal((6,)), bijx.Chain(bijx.ExpandDims(-2), part, bijx.SqueezeDims(-2))
    )
    theirs = bijx.Transformed(bijx.IndependentNormal((6,)), bijx.FreeTheoryScaling(m2, (6,)))
    x, density = ours.sample((5,), rng=jax.random.key(0))
    np.testing.assert_allclose(ours.log_density(x), density, rtol=1e-9)
    np.testing.assert_allclose(theirs.log_density(x), density, rtol=1e-9)


def test_constants_are_not_trained_and_a_state_is_restored() -> None:
    import bijx
    import optax
    from flax import nnx

    convs = [invconv_jax.init(jax.random.key(i), ic.PLUConv1x1, 3) for i in range(2)]
    first, second = (interop.BijxBijection(conv, ndim=2) for conv in convs)
    x = jax.random.normal(jax.random.key(2), (4, 3, *GRID))
    assert len(jax.tree.leaves(nnx.state(first, bijx.Const))) == 2  # permutation and sign
    before = first.reverse(x, 0.0)[0]
    nnx.update(second, nnx.state(first))
    np.testing.assert_array_equal(second.reverse(x, 0.0)[0], before)
    optimizer = nnx.Optimizer(first, optax.adamw(0.1, weight_decay=0.5), wrt=nnx.Param)
    gradient = nnx.grad(lambda part: (part.reverse(x, 0.0)[0] ** 2).sum())(first)
    optimizer.update(first, gradient)
    for name in ("sign", "permutation"):
        assert (getattr(first.conv, name) == getattr(convs[0], name)).all()
    assert not np.allclose(first.conv.upper, convs[0].upper)
