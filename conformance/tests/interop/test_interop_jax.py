"""What JAX's flow libraries ask of an operator, in the real packages; `test_peers` has values."""

import math
import pickle
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax
from invconv import extend
from invconv_jax import interop
from tests.interop.peers import JAX as LIBRARIES
from tests.selected import installed

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
    image = normal(0, 1, *event)
    np.testing.assert_allclose(doubled.conv.forward(image), 2 * conv.forward(image))
    assert not any(jax.tree.leaves(jax.tree.map(lambda leaf: False, part)))  # masks, as optax has
    x = jnp.zeros(event)

    def run(part: Any, x: Any) -> Any:
        if library == "bijx":
            return part.reverse(x, 0.0)[0]
        return (part._inverse if library == "numpyro" else part.inverse)(x)

    got = jax.jit(run)(part, x)
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


def test_distrax_knows_that_it_is_affine() -> None:
    distrax = pytest.importorskip("distrax")
    conv = ic.PeriodicConv(np.asarray([[[1.0, 0.3, -0.2]]]), np.asarray([2.0]))
    part = interop.DistraxBijector(conv.asarrays(jnp.zeros(1)))
    base = distrax.Independent(distrax.Normal(jnp.zeros((1, 6)), jnp.ones((1, 6))), 2)
    flow = distrax.Transformed(base, part)
    matrix = jax.jacobian(lambda x: part.inverse(x).ravel())(jnp.zeros((1, 6))).reshape(6, 6)
    mean = -np.linalg.solve(matrix, np.full(6, 2.0))
    np.testing.assert_allclose(flow.mean().ravel(), mean, rtol=1e-4)
    entropy = 3 * math.log(2 * math.pi * math.e) - np.linalg.slogdet(matrix)[1]
    found = jax.jit(distrax.Transformed.entropy)(flow)  # which passes it on as its leaves
    assert float(found) == pytest.approx(entropy, rel=1e-4)
    again = interop.DistraxBijector(part.conv)
    assert part.same_as(again)
    assert not part.same_as(interop.DistraxBijector(part.conv.replace()))
    assert float(flow.kl_divergence(distrax.Transformed(base, again))) == 0
    other = interop.DistraxBijector(part.conv.replace(kernel=2 * part.conv.kernel))
    inverses = distrax.Inverse(part), distrax.Inverse(other)
    for pair in ((part, other), (part, distrax.Chain([other, part])), inverses):
        one, two = (distrax.Transformed(base, each) for each in pair)
        with pytest.raises(NotImplementedError, match="not possible to guarantee"):
            one.kl_divergence(two)
    mixing = invconv_jax.init(jax.random.key(0), ic.QRConv1x1, 3)
    one, two = (interop.DistraxBijector(mixing, ndim=n) for n in (1, 2))
    assert not one.same_as(two)  # their log-determinants have other shapes


def test_flowjax_leaves_constants_alone() -> None:
    equinox, paramax = map(pytest.importorskip, ("equinox", "paramax"))
    conv = invconv_jax.init(jax.random.key(0), ic.PLUConv1x1, 3)  # integers, and a constant sign
    part = interop.FlowjaxBijection(conv, (3, 2))
    x = jax.random.normal(jax.random.key(1), (3, 2))
    gradient = equinox.filter_grad(lambda p: p.inverse(x).sum())(part).conv
    assert gradient.permutation is None
    assert not gradient.sign.any()
    assert gradient.lower.any()

    def is_constant(node: Any) -> bool:  # as flowjax.train asks, whose optimizers decay weights
        return isinstance(node, paramax.NonTrainable)

    trained = equinox.filter(part, equinox.is_inexact_array, is_leaf=is_constant)
    assert len(jax.tree.leaves(trained)) == len(conv.parameters()) == 3
    frozen = paramax.non_trainable(part)
    gradient = equinox.filter_grad(lambda p: paramax.unwrap(p).inverse(x).sum())(frozen)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))
    copy = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(copy.inverse(x), part.inverse(x))


def test_a_transform_keeps_the_rules_of_numpyro() -> None:
    pytest.importorskip("numpyro")
    from numpyro import distributions as dist

    mixing = invconv_jax.init(jax.random.key(0), ic.QRConv1x1, 4)
    conv = ic.Chain([mixing, invconv_jax.init(jax.random.key(1), ic.EmergingConv, 4)])
    event = (4, 4, 4)
    transform = interop.NumpyroTransform(conv)
    assert transform.inv.inv is transform
    assert transform.domain is transform.inv.codomain
    assert transform.codomain is transform.inv.domain
    assert transform.domain.event_dim == transform.codomain.event_dim == 3
    assert transform == interop.NumpyroTransform(conv)
    assert transform != interop.NumpyroTransform(conv.replace(**{"0.scale": mixing.scale + 1}))
    assert transform != interop.NumpyroTransform(ic.Inverse(conv))
    assert interop.NumpyroTransform(mixing, ndim=1) != interop.NumpyroTransform(mixing, ndim=2)
    copied = interop.NumpyroTransform(jax.tree.map(jnp.array, conv))
    assert bool(transform.eq(copied))  # arrays that are equal and not the same,
    assert transform.eq(copied, static=True) is False  # which are not compared then
    assert transform.eq(interop.NumpyroTransform(conv), static=True) is True
    assert transform != transform.inv
    z = jax.random.normal(jax.random.key(0), (3, *event))
    x, intermediates = transform.call_with_intermediates(z)
    log_det = transform.log_abs_det_jacobian(z, x)
    again = transform.log_abs_det_jacobian(z, x, intermediates)
    np.testing.assert_allclose(again, log_det, rtol=1e-4)
    flow = dist.TransformedDistribution(dist.Normal(0, 1).expand((5, *event)), transform)
    assert (flow.batch_shape, flow.event_shape) == ((5,), event)
    samples, intermediates = flow.sample_with_intermediates(jax.random.key(1), (2,))
    density = flow.log_prob(samples, intermediates)
    np.testing.assert_allclose(density, flow.log_prob(samples), rtol=1e-4)
    copy = pickle.loads(pickle.dumps(transform))
    np.testing.assert_array_equal(copy(z), transform(z))


class Crossed(ic.InvertibleConv):
    """A constant matrix times trained signs: names that PLUConv1x1 has the other way round."""

    sign: Any = extend.array("C")
    upper: Any = extend.array("C", "C", constant=True)
    ndim: int = 2

    def factors(self) -> Any:
        return [(extend.Matrix(), self.upper * self.sign)]


def test_bijx_trains_no_constants_and_restores_a_state() -> None:
    bijx, optax = map(pytest.importorskip, ("bijx", "optax"))
    from flax import nnx

    convs = [invconv_jax.init(jax.random.key(i), ic.PLUConv1x1, 3) for i in range(2)]
    first, second = (interop.BijxBijection(conv, ndim=2) for conv in convs)
    x = jax.random.normal(jax.random.key(2), (4, 3, 4, 6))
    assert len(jax.tree.leaves(nnx.state(first, bijx.Const))) == 2  # permutation and sign
    crossed = interop.BijxBijection(ic.Chain([Crossed(jnp.ones(3), jnp.eye(3)), convs[0]]))
    shapes = [leaf.shape for leaf in jax.tree.leaves(nnx.state(crossed, bijx.Const))]
    assert sorted(shapes) == [(3,), (3,), (3, 3)]
    shared = interop.BijxBijection(convs[0].replace(log_scale=convs[0].sign), ndim=2)
    assert len(jax.tree.leaves(nnx.state(shared, bijx.Const))) == 2
    before = first.reverse(x, 0.0)[0]
    nnx.update(second, nnx.state(first))
    np.testing.assert_array_equal(second.reverse(x, 0.0)[0], before)
    optimizer = nnx.Optimizer(first, optax.adamw(0.1, weight_decay=0.5), wrt=nnx.Param)
    gradient = nnx.grad(lambda part: (part.reverse(x, 0.0)[0] ** 2).sum())(first)
    optimizer.update(first, gradient)
    for name in ("sign", "permutation"):
        assert (getattr(first.conv, name) == getattr(convs[0], name)).all()
    assert not np.allclose(first.conv.upper, convs[0].upper)
