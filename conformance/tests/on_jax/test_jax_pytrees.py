"""Operators as JAX pytrees: transformations, odd leaves, channels-last data."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax
from invconv_conformance.truth import oracle
from tests.selected import of_each_class

jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.usefixtures("quick_compilation")

NAMES = (
    "pluconv1x1-2d",
    "qrconv1x1-2d",
    "corner-bias",
    "raster-k3",
    "emerging-biases",
    "periodic-bias",
    "symmetric-bias",
    "exponential-bias",
    "chain-flow-step",
    "inverse-emerging-biases",
)
VECTORISED = ("conv1x1-2d", "pluconv1x1-2d", "emerging-biases", "periodic-bias")
some_cases = pytest.mark.parametrize("case", of_each_class(*NAMES))


def on_jax(case: Any) -> tuple[Any, Any]:
    x = jnp.asarray(case.images(1)[0])
    return case.conv().asarrays(x), x


@some_cases
def test_a_tree_and_its_arrays(case: Any) -> None:
    conv, x = on_jax(case)
    leaves, structure = jax.tree.flatten(conv)
    assert {id(leaf) for leaf in leaves} == {id(array) for array in conv._arrays().values()}
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(conv)
    assert repr(again) == repr(conv)
    np.testing.assert_array_equal(again.forward(x), conv.forward(x))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(conv)]
    assert len(set(paths)) == len(leaves)


@some_cases
@pytest.mark.parametrize(
    "change", [np.shape, id, lambda leaf: None, lambda leaf: object(), lambda leaf: leaf[None]]
)
def test_leaves_may_be_anything(case: Any, change: Any) -> None:
    conv, _ = on_jax(case)
    changed = jax.tree.map(change, conv)
    assert type(changed) is type(conv)
    assert repr(changed).startswith(type(conv).__name__)


@some_cases
def test_jit_compiles_once_for_all_values(case: Any) -> None:
    conv, x = on_jax(case)
    traces = []

    @jax.jit  # type: ignore[untyped-decorator]
    def round_trip(conv: Any, x: Any) -> Any:
        traces.append(1)
        return conv.inverse(conv.forward(x))

    for factor in (1, 1.1):
        moved = conv.replace(**{n: factor * a for n, a in conv.parameters().items()})
        np.testing.assert_allclose(round_trip(moved, x), x, rtol=0, atol=1e-9)
    assert len(traces) == 1


@some_cases
def test_gradients_of_an_operator_have_its_structure(case: Any) -> None:
    """Against the core's own vjp; constants get no gradient."""
    conv, x = on_jax(case)
    bar = jnp.asarray(case.images(2)[1])
    log_det_bar = jnp.linspace(-1.0, 2.0, math.prod(case.batch_shape)).reshape(case.batch_shape)

    @jax.jit  # type: ignore[untyped-decorator]
    def gradient(conv: Any) -> Any:
        def loss(conv: Any) -> Any:
            y, log_det = conv.forward_and_log_det(x)
            return (y * bar).sum() + (log_det * log_det_bar).sum()

        return jax.grad(loss, allow_int=True)(conv)

    got = gradient(conv)
    assert type(got) is type(conv)
    expected, _ = case.conv().forward_vjp(*(np.asarray(a) for a in (x, bar, log_det_bar)))
    found = {name: array for name, array in got._arrays().items() if name in expected}
    for name, wanted in expected.items():
        scale = max(1.0, np.abs(wanted).max()) * max(1.0, conv.condition(case.spatial_shape))
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-11 * scale)
    if isinstance(conv, ic.PLUConv1x1):
        assert not np.asarray(got.sign).any()
        assert got.permutation.dtype == jax.dtypes.float0


@some_cases
def test_jacobians_in_the_parameters(case: Any) -> None:
    """Forwards, in reverse and by finite differences of the dense matrix's log-determinant."""
    conv, _ = on_jax(case)
    parameters = conv.parameters()

    def log_det(parameters: Any) -> Any:
        return conv.replace(**parameters).log_det(case.spatial_shape)

    forwards = jax.jit(jax.jacfwd(log_det))(parameters)
    reverse = jax.jit(jax.jacrev(log_det))(parameters)
    host, rng, step = case.conv(), case.rng(), 1e-5
    for name, array in host.parameters().items():
        direction = rng.standard_normal(array.shape)
        ends = []
        for sign in (1, -1):
            moved = host.replace(**{name: array + sign * step * direction})
            ends.append(np.linalg.slogdet(oracle.affine(moved, case.spatial_shape)[0])[1])
        wanted = (ends[0] - ends[1]) / (2 * step)
        for got in (forwards[name], reverse[name]):
            assert abs((got * direction).sum() - wanted) < 1e-6 * max(1.0, abs(wanted))


@pytest.mark.parametrize("case", of_each_class(*VECTORISED))
def test_vmap_over_data_parameters_and_both(case: Any) -> None:
    conv, x = on_jax(case)
    convs = [jax.tree.map(lambda a, f=f: (f * a).astype(a.dtype), conv) for f in (1, 1.05)]
    if isinstance(conv, ic.PLUConv1x1):  # integers and signs are not to be scaled
        convs = [conv.replace(lower=f * conv.lower) for f in (1, 1.05)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *convs)
    images = jnp.stack([x, 2 * x + 1])
    axes = jax.tree.map(lambda leaf: 0, conv)

    @jax.jit  # type: ignore[untyped-decorator]
    def solve(conv: Any, x: Any) -> Any:
        return conv.inverse_and_log_det(x)[0]

    both = jax.jit(jax.vmap(solve, in_axes=(axes, 0)))(stacked, images)
    data = jax.jit(jax.vmap(solve, in_axes=(None, 0)))(conv, images)
    parameters = jax.jit(jax.vmap(solve, in_axes=(0, None)))(stacked, x)
    for i in range(2):
        for got, one, image in (
            (both, convs[i], images[i]),
            (data, conv, images[i]),
            (parameters, convs[i], x),
        ):
            wanted = solve(one, image)
            np.testing.assert_allclose(got[i], wanted, rtol=0, atol=1e-9 * abs(wanted).max())


@some_cases
def test_a_prepared_inverse_is_an_argument_of_jit(case: Any) -> None:
    """It undoes NumPy's forward, and is compiled once for all values."""
    host, x = case.conv(), case.images(1)[0]
    traces = []

    @jax.jit  # type: ignore[untyped-decorator]
    def solve(prepared: Any, y: Any) -> Any:
        traces.append(1)
        return prepared.inverse_and_log_det(y)

    for factor in (1, 1.1):
        moved = host.replace(**{n: factor * a for n, a in host.parameters().items()})
        prepared = moved.asarrays(jnp.asarray(x)).prepare(case.spatial_shape, check=False)
        leaves, structure = jax.tree.flatten(prepared)
        assert all(isinstance(leaf, jax.Array) for leaf in leaves)
        assert repr(jax.tree.unflatten(structure, leaves)) == repr(prepared)
        y, log_det = moved.forward_and_log_det(x)
        back, log_det_back = solve(prepared, jnp.asarray(y))
        np.testing.assert_allclose(back, x, rtol=0, atol=1e-9)
        np.testing.assert_allclose(log_det_back, -log_det, rtol=0, atol=1e-10)
    assert len(traces) == 1


@pytest.mark.parametrize("case", of_each_class("actnorm-2d", "periodic-bias", "emerging-biases"))
def test_channels_last(case: Any) -> None:
    conv, x = on_jax(case)
    axis = x.ndim - 1 - len(case.spatial_shape)
    nhwc = jnp.moveaxis(x, axis, -1)
    last = invconv_jax.channels_last(conv)
    assert (last.channels, last.ndim) == (conv.channels, conv.ndim)
    assert last.log_det(case.spatial_shape) == conv.log_det(case.spatial_shape)
    for method in ("forward", "inverse"):
        got = jax.jit(lambda op, x, m=method: getattr(op, m)(x))(last, nhwc)
        wanted = jnp.moveaxis(getattr(conv, method)(x), axis, -1)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12 * abs(wanted).max())
        value, log_det = getattr(last, f"{method}_and_log_det")(nhwc)
        np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-12 * abs(wanted).max())
        assert log_det.shape == case.batch_shape
    with pytest.raises(ValueError, match="spatial"):
        last.forward(nhwc[..., :1] if conv.channels > 1 else nhwc[..., 0])
