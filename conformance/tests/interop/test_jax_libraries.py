"""What each of JAX's flow libraries asks of its parts; the READMEs' examples train."""

from __future__ import annotations

import math
import pickle
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax
from invconv_jax import interop

jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.usefixtures("quick_compilation")

equinox: Any = pytest.importorskip("equinox")

EVENT = (4, 4, 4)


def step() -> Any:
    """Return the paper's step."""
    one, two = jax.random.split(jax.random.key(1))
    mixing = invconv_jax.init(one, ic.QRConv1x1, 4)
    return ic.Chain([mixing, invconv_jax.init(two, ic.EmergingConv, 4)])


def test_distrax_knows_that_it_is_affine() -> None:
    distrax = pytest.importorskip("distrax")
    conv = ic.PeriodicConv(np.asarray([[[1.0, 0.3, -0.2]]]), np.asarray([2.0]))
    part = interop.DistraxBijector(conv.asarrays(jnp.zeros(1)))
    base = distrax.Independent(distrax.Normal(jnp.zeros((1, 6)), jnp.ones((1, 6))), 2)
    flow = distrax.Transformed(base, part)
    matrix = jax.jacobian(lambda x: part.inverse(x).ravel())(jnp.zeros((1, 6))).reshape(6, 6)
    np.testing.assert_allclose(
        flow.mean().ravel(), -np.linalg.solve(matrix, np.full(6, 2.0)), rtol=1e-4
    )
    entropy = 3 * math.log(2 * math.pi * math.e) - np.linalg.slogdet(matrix)[1]
    assert float(flow.entropy()) == pytest.approx(entropy, rel=1e-4)
    again = interop.DistraxBijector(part.conv)
    assert part.same_as(again)
    assert not part.same_as(interop.DistraxBijector(part.conv.replace()))
    assert float(flow.kl_divergence(distrax.Transformed(base, again))) == 0
    other = interop.DistraxBijector(part.conv.replace(kernel=2 * part.conv.kernel))
    for different in (other, distrax.Inverse(other), distrax.Chain([other, part])):
        with pytest.raises(NotImplementedError, match="not possible to guarantee"):
            flow.kl_divergence(distrax.Transformed(base, different))


def test_flowjax_leaves_constants_alone() -> None:
    pytest.importorskip("flowjax")
    import paramax

    conv = invconv_jax.init(jax.random.key(0), ic.PLUConv1x1, 3)  # integers, and a constant sign
    part = interop.FlowjaxBijection(conv, (3, 2))
    x = jax.random.normal(jax.random.key(1), (3, 2))
    gradient = equinox.filter_grad(lambda p: p.inverse(x).sum())(part).conv
    assert gradient.permutation is None
    assert not gradient.sign.any()
    assert gradient.lower.any()
    frozen = paramax.non_trainable(part)
    assert not any(
        leaf.any()
        for leaf in jax.tree.leaves(
            equinox.filter_grad(lambda p: paramax.unwrap(p).inverse(x).sum())(frozen)
        )
    )
    copy = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(copy.inverse(x), part.inverse(x))


def test_a_transform_keeps_the_rules_of_numpyro() -> None:
    pytest.importorskip("numpyro")
    from numpyro import distributions as dist

    conv = step()
    transform = interop.NumpyroTransform(conv)
    assert transform.inv.inv is transform
    assert transform.domain is transform.inv.codomain
    assert transform.codomain is transform.inv.domain
    assert transform.domain.event_dim == transform.codomain.event_dim == 3
    assert transform == interop.NumpyroTransform(conv)
    assert transform != interop.NumpyroTransform(
        conv.replace(**{"0.scale": conv.steps[0].scale + 1})
    )
    assert transform != interop.NumpyroTransform(ic.Inverse(conv))
    same = transform.eq(interop.NumpyroTransform(jax.tree.map(jnp.array, conv)))
    assert bool(same)  # arrays that are equal and not the same
    assert transform != transform.inv
    z = jax.random.normal(jax.random.key(0), (3, *EVENT))
    x, intermediates = transform.call_with_intermediates(z)
    log_det = transform.log_abs_det_jacobian(z, x)
    np.testing.assert_allclose(
        transform.log_abs_det_jacobian(z, x, intermediates), log_det, rtol=1e-4
    )
    flow = dist.TransformedDistribution(dist.Normal(0, 1).expand((5, *EVENT)), transform)
    assert (flow.batch_shape, flow.event_shape) == ((5,), EVENT)
    samples, intermediates = flow.sample_with_intermediates(jax.random.key(1), (2,))
    np.testing.assert_allclose(
        flow.log_prob(samples, intermediates), flow.log_prob(samples), rtol=1e-4
    )
    copy = pickle.loads(pickle.dumps(transform))
    np.testing.assert_array_equal(copy(z), transform(z))


def test_bijx_trains_no_constants_and_restores_a_state() -> None:
    bijx, optax = map(pytest.importorskip, ("bijx", "optax"))
    from flax import nnx

    convs = [invconv_jax.init(jax.random.key(i), ic.PLUConv1x1, 3) for i in range(2)]
    first, second = (interop.BijxBijection(conv, ndim=2) for conv in convs)
    x = jax.random.normal(jax.random.key(2), (4, 3, 4, 6))
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
