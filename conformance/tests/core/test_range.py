"""Numbers at the ends of a dtype's range, and beyond: right, or said to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict as strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import invconv as ic
from invconv.arrays.namespaces import to_numpy

Make = Callable[[Any], Any]
FLOAT32: dict[str, Make] = {
    "numpy": lambda a: np.asarray(a, np.float32),
    "array_api_strict": lambda a: strict.asarray(np.asarray(a, np.float32)),
    "torch": lambda a: torch.tensor(np.asarray(a, np.float32)),
    "jax": lambda a: jnp.asarray(a, jnp.float32),
}


@pytest.mark.parametrize("library", [*FLOAT32, "jax, jitted"])
def test_a_periodic_inverse_whose_sums_over_the_grid_leave_the_range(library: str) -> None:
    """1e35 at every one of 4,096 pixels; a sample beside it keeps its every digit."""
    rng, make = np.random.default_rng(0), FLOAT32[library.partition(",")[0]]
    conv = ic.PeriodicConv.init(3, rng=rng)
    conv = conv.replace(kernel=conv.kernel / np.linalg.norm(conv.kernel))
    like = conv.asarrays(make(np.zeros(())))
    invert = jax.jit(like.inverse) if "jitted" in library else like.inverse
    y = 1 + 0.1 * rng.standard_normal((2, 3, 64, 64))
    alone = to_numpy(invert(make(y)))
    scale = np.float32(2.0**116)  # 8e34
    y[0] *= scale
    found = to_numpy(invert(make(y)))
    assert np.array_equal(found[1], alone[1])
    np.testing.assert_allclose(found[0] / scale, alone[0], rtol=0, atol=1e-5 * alone.max())


@pytest.mark.parametrize("library", FLOAT32)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_log_determinant_of_reflectors_that_are_no_numbers(library: str, bad: float) -> None:
    conv = ic.QRConv1x1.init(3, rng=np.random.default_rng(0))
    reflectors = conv.reflectors.copy()
    reflectors[1, 2] = bad
    broken = conv.replace(reflectors=reflectors).asarrays(FLOAT32[library](np.zeros(())))
    with np.errstate(invalid="ignore"):
        y, log_det = broken.forward_and_log_det(FLOAT32[library](np.ones((2, 3, 4))))
    assert np.isnan(to_numpy(y)).all()
    assert np.isnan(to_numpy(log_det)).all()


def scaled(conv: Any, size: float) -> ic.InvertibleConv:
    """Return size times an operator."""
    factors = {"log_scale": 1.0} | dict.fromkeys(("weight", "kernel", "scale", "upper"), size)
    moved = {n: factors[n] * a for n, a in conv.parameters().items() if n in factors}
    if "log_scale" in moved:
        moved["log_scale"] += np.log(size)
    found: ic.InvertibleConv = conv.replace(**moved)
    return found


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    "cls",
    [ic.ActNorm, ic.AutoregressiveConv, ic.Conv1x1, ic.PeriodicConv, ic.PLUConv1x1, ic.QRConv1x1],
)
def test_weights_below_the_smallest_normal_number_are_told(cls: Any, library: str) -> None:
    """They have lost digits, and so has what is solved with them: there are seven below 1e-44."""
    make, rng = FLOAT32[library], np.random.default_rng(0)
    conv = scaled(cls.init(3, **({} if cls is ic.ActNorm else {"rng": rng})), 1e-44)
    like = conv.asarrays(make(np.zeros(())))
    y = like.forward(make(rng.standard_normal((1, 3, 4, 5))))
    with pytest.warns(ic.IllConditionedWarning), np.errstate(all="ignore"):
        like.inverse(y)


def test_a_gradient_by_frequencies_overflows_only_where_its_sums_do() -> None:
    """Of a kernel as wide as the box."""
    x = np.random.default_rng(0).standard_normal((3, 2, 24, 27)).astype("float32")
    conv, large = ic.PeriodicConv(x[:2]), x * np.float32(2.0**58)
    least = conv.forward_vjp(x, x)[0]["kernel"]
    assert np.array_equal(conv.forward_vjp(large, large)[0]["kernel"], least * 2.0**116)
