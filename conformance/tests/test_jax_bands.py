"""Large images are solved band by band by JAX on a CPU: the same inverse, and little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
from invconv_conformance import oracle
from invconv_jax import bands

RNG = np.random.default_rng(0)
KINDS: tuple[tuple[dict[str, Any], tuple[int, ...]], ...] = (
    ({"kernel_size": 2, "direction": (1, 1)}, (7, 5)),
    ({"kernel_size": 2, "direction": (-1, 1)}, (7, 5)),
    ({"kernel_size": (2, 3), "direction": (1, -1)}, (3, 11)),
    ({"kernel_size": 3, "direction": (-1, -1), "dilation": (2, 1)}, (9, 4)),
    ({"kernel_size": 3, "mask": "raster", "direction": 1}, (7, 5)),
    ({"kernel_size": 3, "mask": "raster", "direction": -1}, (5, 9)),
    ({"kernel_size": 3, "ndim": 1, "direction": -1}, (11,)),
    ({"kernel_size": 2, "ndim": 3, "direction": (1, -1, -1)}, (3, 2, 5)),
)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let every solve go by as many bands as is said, where its taps reach less far."""
    monkeypatch.setattr(bands, "_WHOLE", 0)
    monkeypatch.setattr(bands, "_BAND", 1)
    monkeypatch.setattr(bands, "_MOST", request.param)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation() -> Iterator[None]:
    """Have XLA spend less on programs that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("narrow", [3, 16], indirect=True)
@pytest.mark.parametrize(("kind", "grid"), KINDS, ids=str)
@pytest.mark.usefixtures("narrow")
def test_bands_solve_the_dense_system(kind: dict[str, Any], grid: tuple[int, ...]) -> None:
    conv = ic.AutoregressiveConv.init(2, rng=RNG, **{"ndim": 2, **kind})
    matrix, _ = oracle.affine(conv, grid)
    y = RNG.standard_normal((3, 2, *grid))
    wanted = np.linalg.solve(matrix, y.reshape(3, -1).T).T.reshape(y.shape)
    with jax.enable_x64(True):
        solve = conv.asarrays(jnp.zeros((), float)).prepare(grid, check=False).inverse
        text = str(jax.make_jaxpr(solve)(y))
        assert text.count("while[") + text.count("scan[") >= 2  # bands, and fronts in each
        for x in (solve(jnp.asarray(y)), jax.vmap(solve)(jnp.asarray(y[:, None]))[:, 0]):
            close = 1e-13 * np.abs(wanted).max()
            np.testing.assert_allclose(np.asarray(x), wanted, rtol=0, atol=close)
        bar = RNG.standard_normal(y.shape)
        _, pull = jax.vjp(solve, jnp.asarray(y))
        found = np.asarray(pull(jnp.asarray(bar))[0])
    transposed = np.linalg.solve(matrix.T, bar.reshape(3, -1).T).T.reshape(y.shape)
    np.testing.assert_allclose(found, transposed, rtol=0, atol=1e-13 * np.abs(transposed).max())


@pytest.mark.parametrize("narrow", [16], indirect=True)
@pytest.mark.usefixtures("narrow")
def test_the_laws_hold_in_bands(hold_the_laws: Callable[..., None]) -> None:
    hold_the_laws("jax", ("float32",))


@pytest.mark.parametrize("shape", [(16, 48, 64, 64), (1, 12, 512, 512), (170, 12, 32, 32)], ids=str)
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_a_large_solve_needs_a_third_of_its_input_beside_the_result(
    shape: tuple[int, ...], kernel_size: int
) -> None:
    conv = ic.AutoregressiveConv.init(
        shape[1], kernel_size, rng=RNG, like=jnp.zeros((), np.float32)
    )
    y = jax.ShapeDtypeStruct(shape, np.float32)
    compiled = jax.jit(conv.prepare(shape[2:], check=False).inverse).lower(y).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes <= 0.3 * 4 * np.prod(shape)


def test_small_images_are_solved_at_once() -> None:
    def count(shape: tuple[int, ...]) -> int:
        conv = ic.AutoregressiveConv.init(shape[1], 2, rng=RNG, like=jnp.zeros((), np.float32))
        solver = jax.jit(conv.prepare(shape[2:], check=False).inverse)
        return str(solver.lower(jax.ShapeDtypeStruct(shape, np.float32)).as_text()).count("while")

    assert count((64, 12, 16, 16)) < count((16, 48, 64, 64))
