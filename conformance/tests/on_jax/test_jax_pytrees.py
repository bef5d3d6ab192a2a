"""Operators as JAX pytrees: keys, transformations, odd leaves, channels-last data, checkpoints."""

import copy
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export
from jax import numpy as jnp

import invconv as ic
import invconv_jax
from invconv import extend
from invconv_jax import pytrees
from tests.selected import COMPILED, OWN, of_each_class, slow

pytestmark = pytest.mark.usefixtures("quick_compilation")

VECTORISED = "pluconv1x1-2d", "emerging-biases"
some_cases = pytest.mark.parametrize("case", of_each_class(*COMPILED))


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
    for change in (np.shape, id, lambda leaf: None, lambda leaf: object(), lambda leaf: leaf[None]):
        changed = jax.tree.map(change, conv)  # leaves may be anything
        assert type(changed) is type(conv)
        assert repr(changed).startswith(type(conv).__name__)


@some_cases
def test_operators_and_prepared_inverses_are_arguments_of_jit(case: Any) -> None:
    """They undo NumPy's forward, and are compiled once for all values."""
    host, x = case.conv(), case.images(1)[0]
    traces = []

    @jax.jit  # type: ignore[untyped-decorator]
    def solve(conv: Any, prepared: Any, y: Any) -> Any:
        traces.append(1)
        return conv.inverse_and_log_det(y), prepared.inverse_and_log_det(y)

    for factor in (1, 1.1):
        moved = host.replace(**{n: factor * a for n, a in host.parameters().items()})
        conv = moved.asarrays(jnp.asarray(x))
        prepared = conv.prepare(case.spatial_shape, check=False)
        leaves, structure = jax.tree.flatten(prepared)
        assert all(isinstance(leaf, jax.Array) for leaf in leaves)
        assert repr(jax.tree.unflatten(structure, leaves)) == repr(prepared)
        assert repr(jax.eval_shape(lambda p: p, prepared)).startswith("PreparedInverse")
        y, log_det = moved.forward_and_log_det(x)
        for back, log_det_back in solve(conv, prepared, jnp.asarray(y)):
            np.testing.assert_allclose(back, x, rtol=0, atol=1e-9)
            np.testing.assert_allclose(log_det_back, -log_det, rtol=0, atol=1e-10)
    assert len(traces) == 1


class Halves:
    """A solver of a class that nobody here knows: two halves of a matrix's inverse, and a word."""

    def __init__(self, back: Any, word: str) -> None:
        self.parts, self.word = (back / 2, {"other": back / 2}), word
        self.plan = ic.Plan(word)

    def __call__(self, y: Any) -> Any:
        assert self.word == "halves"
        return jnp.einsum("ij,bj...->bi...", self.parts[0] + self.parts[1]["other"], y)


@dataclass(frozen=True)
class Inverted(extend.Matrix):
    """Matrices with that solver."""

    stepwise = False

    def factor(self, w: Any, shape: Any) -> Any:
        return Halves(jnp.linalg.inv(w), "halves")


class Strange(ic.InvertibleConv):
    """A matrix of that family at every pixel."""

    weight: Any = extend.array("C", "C")
    ndim: int = 2

    def factors(self) -> Any:
        return [(Inverted(), self.weight)]


def test_threads_may_flatten_the_first_inverses_of_a_kind(monkeypatch: Any) -> None:
    def late(*given: Any) -> None:
        time.sleep(0.05)
        jax.tree_util.register_pytree_node(*given)

    monkeypatch.setattr(pytrees, "register_pytree_node", late)
    monkeypatch.setitem(globals(), "Halves", type("New", (Halves,), {}))
    with ThreadPoolExecutor(2) as threads:
        both = [Strange(jnp.eye(2)).prepare((3, 4)) for _ in range(2)]
        one, other = threads.map(jax.tree.leaves, both)
    assert len(one) == len(other) > 2


def test_a_pickled_inverse_is_a_pytree_where_its_classes_are_new(monkeypatch: Any) -> None:
    prepared = Strange(jnp.eye(2)).prepare((3, 4))
    leaves, data = jax.tree.leaves(prepared), pickle.dumps(prepared)
    monkeypatch.setitem(globals(), "Halves", type("New", (Halves,), {}))  # as in another process
    found = jax.tree.leaves(pickle.loads(data))
    jax.tree.map(np.testing.assert_array_equal, found, leaves)


def test_a_prepared_inverse_with_a_strange_solver_is_an_argument_of_jit_and_vmap() -> None:
    weights = jnp.asarray([[[2.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [3.0, 1.0]]])
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3, 4)))
    prepared = jax.vmap(lambda weight: Strange(weight).prepare((3, 4)))(weights)
    found = jax.jit(jax.vmap(lambda prepared, y: prepared.inverse(y[None])[0], (0, 0)))(
        prepared, jnp.einsum("bij,bj...->bi...", weights, x)
    )
    np.testing.assert_allclose(found, x, atol=1e-12)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(prepared))
    leaves, structure = jax.tree.flatten(prepared)
    odd = jax.tree.unflatten(structure, [object() for _ in leaves])
    assert jax.tree.structure(odd) == structure
    halves = Halves(jnp.eye(2), "halves")
    vars(halves)["used"] = jnp, ic.Plan  # a module and a class are static
    assert len(jax.tree.leaves(halves)) == 2


@pytest.mark.parametrize("case", of_each_class(*VECTORISED))
def test_vmap_over_data_parameters_and_both(case: Any) -> None:
    """Of an inverse and its gradient; the data along the last axis, and one map in another."""
    conv, x = on_jax(case)
    changed = ["lower"] if isinstance(conv, ic.PLUConv1x1) else list(conv.parameters())
    convs = [conv.replace(**{n: f * conv.parameters()[n] for n in changed}) for f in (1, 1.05)]
    stacked, images = jax.tree.map(lambda *a: jnp.stack(a), *convs), (x, 2 * x + 1)
    last = jnp.stack(images, axis=-1)

    @jax.jit  # type: ignore[untyped-decorator]
    def solve(conv: Any, x: Any) -> Any:
        x, back = jax.vjp(conv.inverse, x)
        return x, back(x)[0]

    both = jax.jit(jax.vmap(solve, (0, -1)))(stacked, last)
    pairs = jax.jit(jax.vmap(jax.vmap(solve, (None, -1)), (0, None)))(stacked, last)
    for i, one in enumerate(convs):
        for j, image in enumerate(images):
            for pair, each, wanted in zip(pairs, both, solve(one, image), strict=True):
                for got in (pair[i, j], each[i])[: 2 if i == j else 1]:
                    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9 * abs(wanted).max())
    none = jax.tree.map(lambda array: array[:0], stacked)
    for each, map_, many in ((conv, (None, -1), last[..., :0]), (none, (0, None), x)):
        assert jax.vmap(lambda conv, x: conv.inverse(x), map_)(each, many).shape == (0, *x.shape)


@pytest.mark.parametrize("case", of_each_class("actnorm-2d", "periodic-bias", "emerging-biases"))
def test_channels_last(case: Any) -> None:
    conv, x = on_jax(case)
    axis = x.ndim - 1 - len(case.spatial_shape)
    nhwc = jnp.moveaxis(x, axis, -1)
    last = invconv_jax.channels_last(conv)
    assert (last.channels, last.ndim) == (conv.channels, conv.ndim)
    assert last.log_det(case.spatial_shape) == conv.log_det(case.spatial_shape)
    for method, argument in (("forward", "x"), ("inverse", "y")):
        got = jax.jit(lambda op, x, m=method: getattr(op, m)(x))(last, nhwc)
        wanted = jnp.moveaxis(getattr(conv, method)(x), axis, -1)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12 * abs(wanted).max())
        value, log_det = getattr(last, f"{method}_and_log_det")(**{argument: nhwc})
        np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-12 * abs(wanted).max())
        assert log_det.shape == case.batch_shape
        if conv.ndim is not None:
            first = (0,) * len(case.batch_shape)
            np.testing.assert_allclose(getattr(last, method)(nhwc[first]), wanted[first], 1e-9)
    for method, argument in (("forward", "x"), ("inverse", "y")):
        with pytest.raises(ValueError, match=f"^{argument}: .* spatial"):
            getattr(last, method)(nhwc[..., :1] if conv.channels > 1 else nhwc[..., 0])


@pytest.mark.parametrize("name", ["adamw", slow("lion")])
def test_weight_decay_does_not_reach_the_sign_of_plu(name: str) -> None:
    optax, equinox = pytest.importorskip("optax"), pytest.importorskip("equinox")
    conv = invconv_jax.init(jax.random.key(0), ic.PLUConv1x1, 3, dtype="float32")
    optimiser = getattr(optax, name)(1e-2, weight_decay=0.5)
    x = jax.random.normal(jax.random.key(1), (16, 3, 8, 8), "float32")

    def loss(conv: Any) -> Any:
        z, log_det = conv.forward_and_log_det(x)
        return ((z**2).sum() / 2 - log_det.sum()) / x.size

    def step(conv: Any, state: Any) -> Any:
        trained = equinox.filter(conv, equinox.is_inexact_array)
        updates, state = optimiser.update(equinox.filter_grad(loss)(conv), state, trained)
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


CLASSES = [cls for cls in OWN if hasattr(cls, "init")]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_init_depends_on_the_key_alone(cls: Any) -> None:
    key = jax.random.key(3)
    conv = invconv_jax.init(key, cls, 4)
    assert type(conv) is cls
    again = invconv_jax.init(jax.random.key(3), cls, 4)
    traced = jax.jit(lambda key: invconv_jax.init(key, cls, 4))(key)
    raw = invconv_jax.init(jax.random.key_data(key), cls, 4)
    for other in (again, traced, raw):
        assert_same(other, conv)
    for word in (0, 1):  # of the two that a key has
        different = invconv_jax.init(jax.random.key_data(key).at[word].add(1), cls, 4)
        pairs = zip(jax.tree.leaves(conv), jax.tree.leaves(different), strict=True)
        assert all(bool((a == b).all()) for a, b in pairs) == (cls is ic.ActNorm)


def test_init_passes_settings_on() -> None:
    settings: dict[str, Any] = {"ndim": 3, "mask": "raster", "dtype": "bfloat16"}
    conv = invconv_jax.init(jax.random.key(0), ic.AutoregressiveConv, 2, 3, **settings)
    assert conv.kernel.shape == (2, 2, 3, 5, 5)
    assert conv.kernel.dtype == jnp.bfloat16


FEW: list[Any] = [ic.ActNorm, ic.PLUConv1x1, ic.EmergingConv]


def chain(seed: int, classes: list[Any] = FEW) -> ic.Chain:
    keys = jax.random.split(jax.random.key(seed), len(classes))
    return ic.Chain([invconv_jax.init(k, c, 2) for k, c in zip(keys, classes, strict=True)])


X = jax.random.normal(jax.random.key(9), (2, 2, 4, 5))


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(one, jax.Array)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("duplicate", [copy.copy, lambda a: pickle.loads(pickle.dumps(a))])
def test_pickles_and_copies_of_pytrees(duplicate: Any) -> None:
    conv = chain(0, CLASSES)
    reversible = invconv_jax.reversible(chain(0), (4, 5))
    for one in (conv, invconv_jax.channels_last(conv), reversible):
        assert_same(duplicate(one), one)
    wanted = reversible.forward_and_log_det(X)[0]
    np.testing.assert_array_equal(duplicate(reversible).forward_and_log_det(X)[0], wanted)


def test_flax_serialization_of_operators() -> None:
    serialization = pytest.importorskip("flax.serialization")
    invconv_jax.register_with_flax()
    conv, other = chain(0, CLASSES), chain(1, CLASSES)
    data = serialization.to_bytes({"flow": conv, "step": 3})
    found = serialization.from_bytes({"flow": other, "step": 0}, data)
    assert found["step"] == 3
    assert_same(found["flow"], conv)
    with pytest.raises(ValueError, match=r"state: expected the arrays .*0\.bias"):
        serialization.from_bytes(chain(0)[0], serialization.to_bytes(conv))
    for axis in (0, -1):  # two flows at once, as `linen.scan` has them
        join = partial(jax.tree.map, lambda *arrays, at=axis: jnp.stack(arrays, at))
        stacked, started = (join(*(chain(i, CLASSES) for i in some)) for some in ((0, 1), (2, 3)))
        data = serialization.to_bytes(stacked)
        assert_same(serialization.from_bytes(started, data), stacked)
        for change in (lambda a: a[..., :1], lambda a: a.astype("float16")):
            with pytest.raises(ValueError, match=r"state: expected 0.* stacked operators have it"):
                serialization.from_bytes(jax.tree.map(change, started), data)


def test_orbax_writes_and_reads_operators(tmp_path: Path) -> None:
    checkpoint = pytest.importorskip("orbax.checkpoint")
    conv = chain(0, CLASSES)
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "flow", conv)
        checkpointer.wait_until_finished()
        assert_same(checkpointer.restore(tmp_path / "flow", chain(1, CLASSES)), conv)


def test_an_exported_program_takes_and_returns_operators() -> None:
    """Of serialized programs; the structure travels as class names and settings."""
    conv = chain(0, CLASSES)

    def step(conv: Any, x: Any) -> Any:
        z, log_det = conv.forward_and_log_det(x)
        return jax.tree.map(lambda leaf: leaf, conv), z, log_det

    program = export.export(jax.jit(step))(conv, X).serialize()
    found, *results = export.deserialize(bytearray(program)).call(conv, X)
    assert_same(found, conv)
    for one, other in zip(results, jax.jit(step)(conv, X)[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
