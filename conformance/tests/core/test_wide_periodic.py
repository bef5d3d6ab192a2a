"""Periodic kernels as wide as the box: forwards and gradients by frequencies, in every library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.kernels import convolutions

RNG = np.random.default_rng(0)
BOX = (24, 27)  # pixels, and taps
MOST = 16.0  # units of rounding of the result's root mean square


def by_taps(kernel: Any, x: Any) -> Any:
    """Sum over taps in extended precision."""
    y = np.zeros(x.shape, np.longdouble)
    for i, j in np.ndindex(kernel.shape[2:]):
        moved = [(k - 1) // 2 - t for k, t in zip(kernel.shape[2:], (i, j), strict=True)]
        y += np.einsum("oc,bchw->bohw", kernel[:, :, i, j], np.roll(x, moved, (2, 3)))
    return y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_sum_over_taps_to_rounding(dtype: str) -> None:
    kernel, x, y_bar = (
        RNG.standard_normal((n, 2, *BOX)).astype(dtype).astype(np.longdouble) for n in (2, 3, 3)
    )
    conv = ic.PeriodicConv(kernel.astype(dtype))
    gradients, x_bar = conv.forward_vjp(x.astype(dtype), y_bar.astype(dtype))
    turned = conv.transpose().kernel.astype(np.longdouble)
    for found, truth in (
        (conv.forward(x.astype(dtype)), by_taps(kernel, x)),
        (x_bar, by_taps(turned, y_bar)),
        (gradients["kernel"], kernel_gradient(x, y_bar)),
    ):
        unit = np.finfo(dtype).eps * np.sqrt(np.mean(truth**2))
        assert found.dtype == dtype
        assert np.abs(found - truth).max() <= MOST * unit


def kernel_gradient(x: Any, y_bar: Any) -> Any:
    found = np.zeros((2, 2, *BOX), np.longdouble)
    for i, j in np.ndindex(BOX):
        moved = [(k - 1) // 2 - t for k, t in zip(BOX, (i, j), strict=True)]
        found[:, :, i, j] = np.einsum("bohw,bchw->oc", y_bar, np.roll(x, moved, (2, 3)))
    return found


def test_a_gradient_overflows_only_where_its_sums_do() -> None:
    x = RNG.standard_normal((3, 2, *BOX)).astype("float32")
    conv, large = ic.PeriodicConv(x[:2]), x * np.float32(2.0**58)
    least = conv.forward_vjp(x, x)[0]["kernel"]
    assert np.array_equal(conv.forward_vjp(large, large)[0]["kernel"], least * 2.0**116)


class ByFrequenciesError(Exception):
    """A convolution ran by frequencies."""


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_what_runs_so(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ByFrequenciesError

    monkeypatch.setattr(convolutions, "spectral_apply", refuse)
    monkeypatch.setattr(convolutions, "spectral_gram", refuse)
    if library == "numpy":
        asarray: Any = np.asarray
    else:
        asarray = pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[library]).asarray
    narrow, wide = (
        ic.PeriodicConv(asarray(np.ones((1, 1, *k), np.float32))) for k in ((23, 24), (25, 24))
    )
    x = asarray(np.ones((1, 1, 5, 4), np.float32))
    narrow.forward_vjp(x, narrow.forward(x))
    for run in (wide.forward, wide.transpose().forward, lambda x: wide.forward_vjp(x, x)):
        with pytest.raises(ByFrequenciesError):
            run(x)


def test_extended_precision_has_no_transform() -> None:
    family = convolutions.circular_family(BOX, (1, 1))
    kinds = np.float32, np.float64, np.longdouble
    assert [family.by_frequencies(np.zeros((1, 1, 3, 4), t)) for t in kinds] == [True, True, False]
