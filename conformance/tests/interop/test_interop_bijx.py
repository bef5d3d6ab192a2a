"""A flow of bijx on a lattice without a channel axis, and one that trains."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

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


def lattice(conv: Any) -> Any:
    """Return a flow of fields (*batch, *GRID), which have no channel axis."""
    import bijx

    step = bijx.Chain(bijx.ExpandDims(-3), interop.BijxBijection(conv), bijx.SqueezeDims(-3))
    return bijx.Transformed(bijx.IndependentNormal(GRID), step)


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


@pytest.mark.slow
def test_bijx_trains() -> None:
    import optax
    from flax import nnx

    target = lattice(ic.PeriodicConv(jnp.asarray([[[[0.1, 0.3], [1.0, -0.5], [0.2, 0.1]]]])))
    x, density = target.sample((512,), rng=jax.random.key(0))
    flow = lattice(invconv_jax.init(jax.random.key(1), ic.PeriodicConv, 1, (3, 2)))
    optimizer = nnx.Optimizer(flow, optax.adam(0.03), wrt=nnx.Param)

    @nnx.jit
    def step(flow: Any, optimizer: Any) -> Any:
        loss, gradient = nnx.value_and_grad(lambda flow: -flow.log_density(x).mean())(flow)
        optimizer.update(flow, gradient)
        return loss

    losses = [float(step(flow, optimizer)) for _ in range(150)]
    entropy = -float(density.mean())
    assert losses[0] > entropy + 10
    assert abs(losses[-1] - entropy) < 0.02 * (losses[0] - entropy)  # most of it is learned
