"""Compare operators on images split over a 2 x 2 mesh with the same unsplit, in float64.

A batch that is split is gathered nowhere in the compiled programs.

It is a program of its own, which `test_jax_primitives` starts with four virtual CPU devices. Its
arguments: "some" for a few operators and the splits that XLA is known to get wrong, or the name of
one operator for a quarter of all splits, each another; and "explicit" for a mesh whose axes
are part of the arrays' types.
"""

import itertools
import re
import sys
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
from invconv_conformance.cases.table import perturbed

SHAPE = (4, 4, 4, 8)  # of the images
COLLECTIVES = r"\b(all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce)(?:-start)?\("
SOME = [(None, "a", None, "b"), (None, None, "a")]
PAIRS = itertools.combinations(range(4), 2)
EVERY = [
    *(tuple({i: "a", j: "b"}.get(axis) for axis in range(4)) for i, j in PAIRS),
    *((None,) * i + (name,) for i in range(4) for name in ("a", ("a", "b"))),
]


def operators(name: str) -> list[Any]:
    """Return operators of NumPy arrays: one by its name, or some."""
    rng = np.random.default_rng(0)
    if hasattr(ic, name):
        return [perturbed(getattr(ic, name).init(4, rng=rng), rng, 0.05)]
    raster = ic.AutoregressiveConv.init(4, rng=rng, mask="raster", dilation=2)
    if name == "dilated":
        periodic, closed = ic.PeriodicConv, ic.ExponentialConv
        more = [periodic.init(4, rng=rng, dilation=2), closed.init(4, rng=rng, padding="circular")]
        return [raster, ic.Inverse(more[0]), *more]
    return [raster, perturbed(ic.PeriodicConv.init(4, rng=rng), rng, 0.05)]


def values(convs: list[Any], x: Any) -> Any:
    """Return values and log-determinants of both directions."""
    return [(conv.forward_and_log_det(x), conv.inverse_and_log_det(x)) for conv in convs]


def differentiated(convs: list[Any], x: Any, weights: Any) -> Any:
    """Return them, and the gradients by the operators and the images."""

    def loss(convs: list[Any], x: Any) -> Any:
        found = values(convs, x)
        parts = [
            (weights * (y * y + z * z)).sum() + (log_det * inverse_log_det).sum()
            for (y, log_det), (z, inverse_log_det) in found
        ]
        return sum(parts), found

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)(convs, x)


def compare(got: Any, expected: Any, what: str) -> None:
    """Raise where arrays differ, and name those that do."""
    leaves, wrong = jax.tree_util.tree_leaves_with_path(expected), []
    for (path, b), a in zip(leaves, jax.tree.leaves(got), strict=True):
        if b.dtype == jax.dtypes.float0:
            continue
        if not np.abs(np.asarray(a) - np.asarray(b)).max() <= 1e-9 * np.abs(np.asarray(b)).max():
            wrong.append(jax.tree_util.keystr(path))
    assert not wrong, f"{what}: {wrong} differ from the result of one device"


def require_no_gather(convs: list[Any], split: Any, weights: Any) -> None:
    """Raise where a program for a split batch moves it; a parameter's gradient is a sum over it."""
    for function, given in ((values, (split,)), (differentiated, (split, weights))):
        text = jax.jit(function).lower(convs, *given).compile().as_text()
        moves = set(re.findall(COLLECTIVES, text))
        moves -= {"all-reduce"} if function is differentiated else set()
        assert not moves, f"{convs}, {function.__name__}: {moves}"
    gather = jax.jit(jax.numpy.fft.rfft2).lower(split).compile().as_text()
    assert re.search(COLLECTIVES, gather), "the check saw no gather where there is one"


def main(name: str, explicit: bool) -> None:
    """Check all splits, and that explicit axes come back as they went in."""
    jax.config.update("jax_enable_x64", True)
    kind = AxisType.Explicit if explicit else AxisType.Auto
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(kind, kind))
    x, weights = jnp.asarray(np.random.default_rng(1).standard_normal((2, *SHAPE)))
    hosts = operators(name)
    if explicit and name == "dilated":
        # XLA's FFT refuses the layout that it has chosen if both are in a program, not one of them
        hosts = [host for host in hosts if not isinstance(host, ic.Inverse)]
    convs = [host.asarrays(x) for host in hosts]
    last = jax.devices()[-1]
    away = jax.device_put(x, last)
    there = jax.tree.leaves([host.asarrays(away) for host in hosts])
    assert {leaf.device for leaf in (*there, convs[0].forward(away))} == {last}  # JAX moves convs
    run = jax.jit(differentiated)
    expected = run(convs, x, weights)
    batch = NamedSharding(mesh, PartitionSpec("a"))
    if not explicit:
        spread = jax.device_put((x, weights), batch)
        everywhere = jax.device_put(convs, NamedSharding(mesh, PartitionSpec()))
        require_no_gather(everywhere, *spread)
    with jax.set_mesh(mesh):
        compare(jax.jit(values)(convs, x), expected[0][1], f"{name}, unsplit images beside a mesh")
    turn = [*ic.__all__, "dilated", "some"].index(name) + explicit
    for axes in EVERY[turn % 4 :: 4] if name != "some" else SOME[:1]:
        split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))
        compare(run(convs, split, weights), expected, f"{name}, jit, {axes}")
        if explicit:
            found = values(convs, split)
            compare(found, expected[0][1], f"{name}, {axes}")
            pairs = [(y, split) for results in found for y, _ in results]
            batches = jax.device_put(x[None], NamedSharding(mesh, PartitionSpec(None, *axes)))
            if convs[0].ndim is not None:
                pairs.append((convs[0].inverse(batches), batches))
            for y, like in pairs:
                assert y.sharding.is_equivalent_to(like.sharding, y.ndim), (name, axes, y.sharding)
    if name == "some" and explicit:
        conv = operators("ExponentialConv")[0].asarrays(x)

        @jax.jit  # type: ignore[untyped-decorator]
        def twice(conv: Any, x: Any) -> Any:
            gradient = jax.grad(lambda conv: (conv.forward(x) ** 3).sum())
            return jax.jvp(gradient, (conv,), (conv,))[1]

        expected = twice(conv, x)
        with jax.set_mesh(mesh):
            conv = jax.device_put(conv, NamedSharding(mesh, PartitionSpec()))
            split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("a")))
            compare(twice(conv, split), expected, "second derivatives of an exponential")
    if name == "some" and not explicit:
        kept, axes = convs[:1], SOME[-1]
        split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))
        everywhere = jax.device_put((kept, weights), NamedSharding(mesh, PartitionSpec()))
        exported = jax.export.export(run)(everywhere[0], split, everywhere[1])
        found = jax.jit(exported.call)(everywhere[0], split, everywhere[1])
        compare(found, run(kept, x, weights), f"exported, {axes}")
        rows = PartitionSpec("b")  # and what the function splits along "a" is up to XLA
        given = {"mesh": mesh, "in_specs": rows, "out_specs": rows, "axis_names": {"b"}}
        part = jax.shard_map(lambda x: kept[0].inverse(kept[0].forward(x)), **given)
        compare(jax.jit(part)(split), x, f"jax.shard_map of some axes, {axes}")
    print("the same")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["explicit"])
