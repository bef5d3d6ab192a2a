"""JAX on a CPU calls the compiled kernel: NumPy's numbers bit for bit, however it is called."""

from __future__ import annotations

from collections.abc import Iterator
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

Floats = np.ndarray[Any, Any]

RNG = np.random.default_rng(0)
KINDS: tuple[tuple[dict[str, Any], tuple[int, ...]], ...] = (
    ({"kernel_size": 3, "ndim": 1, "direction": -1}, (11,)),
    ({"kernel_size": 2, "direction": (1, 1)}, (17, 5)),
    ({"kernel_size": (2, 3), "direction": (-1, 1), "channel_order": "upper"}, (3, 11)),
    ({"kernel_size": 3, "direction": (-1, -1), "dilation": (2, 1)}, (9, 4)),
    ({"kernel_size": 3, "mask": "raster", "direction": 1}, (18, 5)),
    ({"kernel_size": 3, "mask": "raster", "direction": -1, "dilation": 9}, (5, 9)),
    ({"kernel_size": 2, "ndim": 3, "direction": (1, -1, -1)}, (3, 2, 5)),
    ({"kernel_size": 2, "ndim": 4, "direction": (1, -1, 1, 1)}, (2, 3, 2, 3)),
)
kinds = pytest.mark.parametrize(("kind", "grid"), KINDS, ids=str)
some_kinds = pytest.mark.parametrize(
    ("kind", "grid"),
    [pytest.param(*kind, marks=[pytest.mark.slow] * (i % 3 > 0)) for i, kind in enumerate(KINDS)],
    ids=str,
)
# by default a kind in one dtype with few channels, in the other one with many
EACH_KIND = [
    pytest.param(*of_kind, dtype, channels, marks=[pytest.mark.slow] * ((i + j + k) % 2))
    for i, of_kind in enumerate(KINDS)
    for j, dtype in enumerate(("float32", "float64"))
    for k, channels in enumerate((2, 25))
]


@pytest.fixture(autouse=True, scope="module")
def quick_compilation() -> Iterator[None]:
    """Have XLA spend less on programs that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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


@pytest.mark.parametrize(("kind", "grid", "dtype", "channels"), EACH_KIND, ids=str)
def test_it_is_numpys_inverse_bit_for_bit(
    kind: dict[str, Any], grid: tuple[int, ...], dtype: str, channels: int
) -> None:
    host = convolution(channels, dtype, **kind)
    y = images(3, channels, *grid, dtype=dtype)
    wanted, conv = host.inverse(y), in_jax(host)
    prepared = conv.prepare(grid, check=False)
    assert prepared.plan == host.prepare(grid, check=False).plan
    assert prepared.plan["method"] == "compiled kernel"
    given = jnp.asarray(y)
    for found in (conv.inverse(given), prepared.inverse(given), inverse(conv, given)):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, wanted)
    for i in range(3):
        np.testing.assert_array_equal(inverse(conv, y[i : i + 1]), wanted[i : i + 1])
    error = np.abs(wanted - dense_solution(host, y)).max()
    assert error <= 100 * np.finfo(dtype).eps * np.abs(wanted).max()


@pytest.mark.parametrize("batch", [16, 17, 100])
def test_a_batch_is_as_numpys_too(batch: int) -> None:
    host = convolution(3, "float32")
    y = images(batch, 3, 6, 7, dtype="float32")
    np.testing.assert_array_equal(inverse(in_jax(host), y), host.inverse(y))


@kinds
def test_gradients_are_numpys(kind: dict[str, Any], grid: tuple[int, ...]) -> None:
    host = convolution(2, **kind)
    y, bar = images(3, 2, *grid), images(3, 2, *grid)
    _, pull = jax.vjp(inverse, in_jax(host), jnp.asarray(y))
    conv_bar, y_bar = pull(jnp.asarray(bar))
    wanted, wanted_y_bar = host.inverse_vjp(y, bar)
    np.testing.assert_allclose(conv_bar.kernel, wanted["kernel"], rtol=1e-10, atol=1e-11)
    np.testing.assert_array_equal(y_bar, wanted_y_bar)
    np.testing.assert_allclose(y_bar, dense_solution(host, bar, transposed=True), rtol=1e-10)


def test_a_prepared_inverse_has_the_same_gradient() -> None:
    host = convolution(3)
    y, bar = images(2, 3, 5, 4), images(2, 3, 5, 4)
    prepared = in_jax(host).prepare((5, 4))
    (y_bar,) = jax.vjp(prepared.inverse, jnp.asarray(y))[1](jnp.asarray(bar))
    np.testing.assert_array_equal(y_bar, host.inverse_vjp(y, bar)[1])


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


def test_gradients_of_each_image_alone() -> None:
    host = convolution(2)
    y, conv = images(4, 1, 2, 5, 3), in_jax(host)
    pull = jax.grad(lambda conv, y: (conv.inverse(y) ** 2).sum())
    found = jax.jit(jax.vmap(pull, in_axes=(None, 0)))(conv, y)
    for kernel_bar, image in zip(found.kernel, y, strict=True):
        wanted, _ = host.inverse_vjp(image, 2 * host.inverse(image))
        np.testing.assert_allclose(kernel_bar, wanted["kernel"], rtol=1e-9, atol=1e-12)


def test_y_may_be_donated() -> None:
    host = convolution(3)
    y = images(5, 3, 6, 7)
    run = jax.jit(lambda conv, y: conv.inverse(y), donate_argnums=1)
    np.testing.assert_array_equal(run(in_jax(host), jnp.array(y)), host.inverse(y))


def test_inside_a_loop_and_a_branch() -> None:
    host = convolution(2)
    y, conv = images(2, 2, 4, 5), in_jax(host)
    wanted = y
    for _ in range(3):
        wanted = host.inverse(wanted)

    def step(y: Any, _: Any) -> Any:
        return jax.lax.cond(y.sum() < jnp.inf, conv.inverse, lambda y: y, y), None

    np.testing.assert_array_equal(jax.lax.scan(step, y, length=3)[0], wanted)


@pytest.mark.parametrize("lanes", ["images", "rows"])
def test_nan_stays_in_its_image(lanes: str) -> None:
    batch = 20 if lanes == "images" else 2
    y = jnp.asarray(images(batch, 3, 20, 9)).at[1, 0, 7, 2].set(jnp.nan)
    x = inverse(in_jax(convolution(3)), y)
    assert np.isnan(x[1]).any()
    assert np.isfinite(x[1, :, :7]).all() or np.isfinite(x[1, :, 8:]).all()
    assert np.isfinite(np.delete(x, 1, 0)).all()


def test_an_empty_batch() -> None:
    conv = in_jax(convolution(3))
    assert inverse(conv, jnp.zeros((0, 3, 4, 5))).shape == (0, 3, 4, 5)
    assert jax.vmap(inverse, (None, 0))(conv, jnp.zeros((2, 0, 3, 4, 5))).size == 0


def with_pivots(*pivots: float) -> ic.AutoregressiveConv:
    channels = len(pivots)
    kernel = 0.1 * images(channels, channels, 2, 2)
    kernel[:, :, 0, 0] = np.tril(images(channels, channels), -1) + np.diag(pivots)
    return ic.AutoregressiveConv(kernel)


def test_substitution_at_the_pixel() -> None:
    host = with_pivots(*np.logspace(0, -6, 12))
    y, conv = images(3, 12, 5, 4), in_jax(host)
    prepared = conv.prepare((5, 4), check=False)
    assert prepared.plan["at the pixel"] == "triangular solve"
    wanted = host.prepare((5, 4), check=False).inverse(y)
    np.testing.assert_array_equal(prepared.inverse(jnp.asarray(y)), wanted)
    np.testing.assert_array_equal(inverse(conv, y), wanted)


@pytest.mark.parametrize("pivot", [0.0, np.nan])
def test_a_bad_pivot_gives_no_finite_numbers_in_traced_code(pivot: float) -> None:
    conv = in_jax(with_pivots(1.0, pivot, 1.0).replace())
    x = inverse(conv, images(2, 3, 4, 5))
    assert not np.isfinite(x[:, 1:]).any()
    assert not np.isfinite(x[:, 0, 1:, 1:]).any()
    assert np.isnan(pivot) or np.isnan(x).all()


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


@some_kinds
@pytest.mark.usefixtures("no_kernel")
def test_without_llvmlite_the_scan_runs(kind: dict[str, Any], grid: tuple[int, ...]) -> None:
    host = convolution(2, **kind)
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


@pytest.mark.usefixtures("no_kernel")
def test_the_scan_substitutes_and_takes_weights_of_each_image() -> None:
    hosts = [with_pivots(*np.logspace(0, last, 4)) for last in (-6, 0, -1)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(in_jax, hosts))
    y = images(3, 2, 4, 5, 4)
    found = jax.jit(jax.vmap(lambda conv, y: conv.inverse(y)))(stack, y)
    for host, given, x in zip(hosts, y, found, strict=True):
        # substitution is backward stable in every pixel, whatever the condition: up to 1e80 here
        residual = np.abs(host.forward(np.asarray(x)) - given)
        size = host.replace(kernel=np.abs(host.kernel)).forward(np.abs(x))
        assert (residual <= 1e-13 * size).all()
