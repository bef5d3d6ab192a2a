"""JAX on a CPU calls the compiled kernel, however it is called; its bits are a law."""

from __future__ import annotations

from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
from invconv.kernels.cpu import machine
from invconv_conformance.truth import oracle

jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.usefixtures("quick_compilation")

Floats = np.ndarray[Any, Any]

RNG = np.random.default_rng(0)
KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "one axis": ({"kernel_size": 3, "ndim": 1, "direction": -1}, (11,)),
    "dilated": ({"kernel_size": 3, "direction": (-1, -1), "dilation": (2, 1)}, (9, 4)),
    "raster": ({"kernel_size": 3, "mask": "raster", "direction": -1, "dilation": 9}, (5, 9)),
    "volume": ({"kernel_size": 2, "ndim": 3, "direction": (1, -1, -1)}, (3, 2, 5)),
}


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be as where llvmlite is not installed."""
    monkeypatch.setattr(machine, "reason", lambda *_: "a test says so")


def convolution(channels: int, dtype: str = "float64", **settings: Any) -> ic.AutoregressiveConv:
    options: dict[str, Any] = {"ndim": 2, "rng": RNG, "like": np.zeros((), dtype)} | settings
    conv: ic.AutoregressiveConv = ic.AutoregressiveConv.init(channels, **options)
    return conv


def images(*shape: int, dtype: str = "float64") -> Floats:
    return RNG.standard_normal(shape).astype(dtype)


def in_jax(conv: Any) -> Any:
    return conv.asarrays(jnp.asarray(conv.kernel))


def dense_solution(conv: Any, y: Floats, *, transposed: bool = False) -> Floats:
    matrix, _ = oracle.affine(conv, y.shape[2:])
    rows = y.reshape(len(y), -1).T.astype(float)
    found = np.linalg.solve(matrix.T if transposed else matrix, rows)
    return np.ascontiguousarray(found.T).reshape(y.shape)


@jax.jit  # type: ignore[untyped-decorator]
def inverse(conv: Any, y: Any) -> Any:
    return conv.inverse(y)


@pytest.mark.parametrize("axes", [(None, 0), (None, 3), (0, None), (0, 0)], ids=str)
@pytest.mark.parametrize("outer", [False, True])
def test_vmap(axes: tuple[int | None, int | None], outer: bool) -> None:
    """Over images, over weights, over both, and over another batch around them."""
    hosts = [convolution(2, dilation=(1, 2)) for _ in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(in_jax, hosts))
    conv = in_jax(hosts[0]) if axes[0] is None else stack
    y = images(2, 2, 5, 7) if axes[1] is None else images(3, 2, 2, 5, 7)
    run = jax.vmap(inverse, in_axes=axes)
    given = y if axes[1] is None else np.moveaxis(y, 0, axes[1])
    if outer:
        given = np.stack([given, 2 * given])
        found = jax.jit(jax.vmap(run, in_axes=(None, 0)))(conv, given)[1] / 2
    else:
        found = run(conv, given)
    for i, x in enumerate(found):
        host = hosts[0] if axes[0] is None else hosts[i]
        np.testing.assert_array_equal(x, host.inverse(y if axes[1] is None else y[i]))


def test_numbers_near_zero_are_kept_as_in_numpy() -> None:
    """XLA has the processor take them for zero."""
    host = convolution(2, "float32")
    y = np.zeros((1, 2, 40, 40), np.float32)
    y[:, :, 0, 0] = 1e-36
    wanted = host.inverse(y)
    tiny = np.finfo(np.float32).tiny
    assert ((np.abs(wanted) < tiny) & (wanted != 0)).any()
    np.testing.assert_array_equal(inverse(in_jax(host), y), wanted)
    flushed = jax.jit(lambda x: x * 1.0)(jnp.full(3, tiny / 2, np.float32) * 1.5)
    assert not flushed.any(), "XLA does not flush any more: the kernel need not set the processor"


def test_an_exported_program_needs_nothing_of_ours() -> None:
    host = convolution(3)
    conv, y = in_jax(host), images(2, 3, 4, 5)
    assert "@invconv" in inverse.lower(conv, y).as_text()
    for platforms in (["cpu"], ["cpu", "cuda"]):
        for function in (inverse, jax.jit(jax.vmap(inverse, (None, 0)))):
            given = y if function is inverse else y[None]
            exported = jax.export.export(function, platforms=platforms)(conv, given)
            assert "@invconv" not in exported.mlir_module()
            found = exported.call(conv, jnp.asarray(given)).reshape(y.shape)
            np.testing.assert_allclose(found, host.inverse(y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_kernel")
def test_without_llvmlite_the_scan_runs(kind: str) -> None:
    settings, grid = KINDS[kind]
    host = convolution(2, **settings)
    conv, y, bar = in_jax(host), images(3, 2, *grid), images(3, 2, *grid)
    prepared = conv.prepare(grid, check=False)
    assert prepared.plan["method"] == "wavefront"
    run = jax.jit(lambda conv, y: conv.inverse(y))
    assert "@invconv" not in run.lower(conv, y).as_text()
    wanted = dense_solution(host, y)
    for x in (run(conv, y), prepared.inverse(jnp.asarray(y))):
        np.testing.assert_allclose(x, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
    (y_bar,) = jax.vjp(prepared.inverse, jnp.asarray(y))[1](bar)
    wanted = dense_solution(host, bar, transposed=True)
    np.testing.assert_allclose(y_bar, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())


@pytest.mark.parametrize("batch", [1, 16])
def test_prepared_weights_have_the_layout_of_the_lanes(batch: int) -> None:
    """Of 48 channels both layouts have the same size; a vmap computes weights of its own."""
    conv, y = convolution(48), images(batch, 48, 3, 4)
    prepared = in_jax(conv).prepare((3, 4), check=False)
    found = jax.jit(lambda p, y: p.inverse(y))(prepared, y)
    assert np.array_equal(found, conv.inverse(y))
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), prepared)
    assert np.array_equal(jax.vmap(lambda p: p.inverse(jnp.asarray(y)))(two)[1], found)
