"""Periodic kernels as wide as the box: forwards and gradients by frequencies, in every library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.kernels import convolutions

RNG = np.random.default_rng(0)
BOX = (24, 27)  # pixels, and taps


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
