"""JAX's native primitives at the edges: ill-conditioned, thin, empty, NaN, never promoted."""

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
from invconv.operators.base.register import own_operators
from invconv_conformance.cases.case import perturbed
from invconv_conformance.truth import oracle

jax.config.update("jax_enable_x64", True)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation() -> Iterator[None]:
    """Have XLA spend less on programs that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("traced", [False, True])
def test_an_ill_conditioned_corner_is_solved_backward_stably(traced: bool) -> None:
    """The residual is at the level of rounding though cond(D) is 1e8."""
    rng = np.random.default_rng(0)
    kernel = 0.1 * rng.standard_normal((12, 12, 2, 2))
    kernel[:, :, 0, 0] = np.tril(rng.standard_normal((12, 12)), -1) + np.diag(
        np.logspace(0, -6, 12)
    )
    conv = ic.AutoregressiveConv(jnp.asarray(kernel))
    x = jnp.asarray(rng.standard_normal((2, 12, 3, 3)))
    y = conv.forward(x)
    prepared = conv.prepare((3, 3), check=False)
    got = jax.jit(conv.inverse)(y) if traced else prepared.inverse(y)
    residual = jnp.linalg.norm(conv.forward(got) - y)
    scale = np.linalg.norm(oracle.affine(conv.asarrays(kernel), (3, 3))[0], 2)
    assert residual <= 1e-14 * scale * jnp.linalg.norm(got)
    assert prepared.plan["at the pixel"] == "triangular solve"


def test_an_ill_conditioned_frequency_is_eliminated() -> None:
    kernel = jnp.asarray([[[1.0, 1.0 + 1e-9, 1.0]]])
    conv = ic.PeriodicConv(kernel)
    y = conv.forward(jnp.asarray(np.random.default_rng(0).standard_normal((2, 1, 6))))
    prepared = conv.prepare((6,), check=False)
    assert prepared.plan["per frequency"] == "solve"
    for solve in (prepared.inverse, jax.jit(conv.inverse)):
        np.testing.assert_allclose(conv.forward(solve(y)), y, rtol=0, atol=1e-14)


def test_thin_grids() -> None:
    """On which a tap reaches past whole axes, and a front has one pixel of a line."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        ndim = int(rng.integers(1, 4))
        grid = tuple(map(int, rng.choice([1, 1, 2, 3, 5], ndim)))
        mask = str(rng.choice(["corner", "raster"]))
        dilation = tuple(map(int, rng.integers(1, 5, ndim)))
        host = perturbed(
            ic.AutoregressiveConv.init(2, 3, ndim, mask=mask, dilation=dilation, rng=rng), rng
        )
        matrix, _ = oracle.affine(host, grid)
        y = rng.standard_normal((2, 2, *grid))
        wanted = np.linalg.solve(matrix, y.reshape(2, -1).T).T.reshape(y.shape)
        prepared = host.asarrays(jnp.zeros(())).prepare(grid, check=False)
        found = prepared.inverse(jnp.asarray(y))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11, err_msg=f"{host} {grid}")


FEW = (ic.EmergingConv, ic.PeriodicConv, ic.QRConv1x1)
CLASSES = [
    *FEW,
    *(
        pytest.param(cls, marks=pytest.mark.slow)
        for cls in own_operators()
        if hasattr(cls, "init") and cls not in FEW
    ),
]


@pytest.mark.parametrize("cls", CLASSES)
def test_nan_stays_in_its_sample(cls: Any) -> None:
    rng = np.random.default_rng(0)
    conv = cls.init(3, rng=rng, like=jnp.zeros(()))
    x = jnp.asarray(rng.standard_normal((3, 3, 5, 4))).at[1, 0, 2, 2].set(jnp.nan)
    for function in (conv.forward, jax.jit(conv.inverse)):
        y = function(x)
        assert jnp.isnan(y[1]).any()
        assert jnp.isfinite(y[0]).all()
        assert jnp.isfinite(y[2]).all()


@pytest.mark.parametrize("mask", ["corner", "raster"])
@pytest.mark.parametrize("x64", [False, True])
def test_nothing_is_promoted(x64: bool, mask: str) -> None:
    conv = ic.AutoregressiveConv.init(2, 3, mask=mask, rng=np.random.default_rng(0))
    y = np.random.default_rng(1).standard_normal((2, 2, 5, 6)).astype(np.float32)
    strict = (jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"))
    with jax.enable_x64(x64), strict[0], strict[1]:
        x = jax.jit(lambda conv, y: conv.inverse(y))(conv.asarrays(y), jnp.asarray(y))
    assert x.dtype == np.float32
    np.testing.assert_allclose(conv.forward(np.asarray(x, float)), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 2, 4, 3), (2, 2, 1, 1)])
@pytest.mark.parametrize("cls", CLASSES)
def test_empty_batches_and_single_pixels(cls: Any, shape: tuple[int, ...]) -> None:
    conv = cls.init(2, rng=np.random.default_rng(0), like=jnp.zeros(()))
    x = jnp.ones(shape)
    np.testing.assert_allclose(conv.inverse(conv.forward(x)), x, rtol=1e-12)


@pytest.mark.parametrize(
    ("kernel_size", "dilation", "grid"),
    [
        ((16, 16), 1, (3, 3)),
        (2, 400, (4, 4)),
        ((3, 2), (7, 1), (4, 5)),
        ((2, 3, 5, 5), 3, (2, 4, 4, 4)),
    ],
)
@pytest.mark.parametrize("mask", ["corner", "raster"])
def test_taps_and_dilations_beyond_the_grid_cost_nothing(
    kernel_size: Any, dilation: Any, grid: tuple[int, ...], mask: str
) -> None:
    """Once they were compiled one after the other, for minutes."""
    rng = np.random.default_rng(0)
    conv = ic.AutoregressiveConv.init(
        2, kernel_size, len(grid), dilation=dilation, mask=mask, rng=rng
    )
    y = rng.standard_normal((2, 2, *grid))
    found = conv.asarrays(jnp.zeros(0)).inverse(jnp.asarray(y))
    np.testing.assert_allclose(found, conv.inverse(y), rtol=1e-10, atol=1e-10)


def test_ranks_are_not_promoted() -> None:
    rng = np.random.default_rng(0)
    conv = ic.EmergingConv.init(2, rng=rng).replace(bias=np.ones(2))
    chain = ic.Chain([ic.ActNorm.init(2), conv]).asarrays(jnp.zeros(0))
    with jax.numpy_rank_promotion("raise"):
        chain.inverse(chain.forward(jnp.ones((2, 2, 4, 4))))
