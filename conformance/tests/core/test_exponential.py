"""Exponentials of convolutions: against SciPy's, at large norms, and what `diagnose` says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg

import invconv as ic
from invconv_conformance.truth import oracle

RNG = np.random.default_rng(0)
EPS = 2.0**-52
both_paddings = pytest.mark.parametrize("padding", ["zeros", "circular"])


def symmetric(norm: float, grid: tuple[int, ...], padding: str) -> ic.ExponentialConv:
    """Return one whose M is symmetric and has this 2-norm on a grid."""
    kernel = RNG.standard_normal((2, 2, 3, 3))
    kernel = kernel + kernel.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    conv = ic.ExponentialConv(kernel, padding=padding)
    own = np.linalg.norm(oracle.correlation(conv, grid).astype(float), 2)
    return conv.replace(kernel=kernel * (norm / own))


def test_the_oracle_agrees_with_scipy() -> None:
    for norm in (0.0, 1e-3, 1.0, 20.0):
        matrix = RNG.standard_normal((12, 12))
        matrix *= norm / np.linalg.norm(matrix, 2)
        truth, found = scipy.linalg.expm(matrix), oracle.exponential(matrix)
        assert np.abs(found - truth).max() <= 1e-13 * np.abs(truth).max()


def test_diagnose_says_that_a_norm_of_20_leaves_no_digit() -> None:
    conv = symmetric(20.0, (3, 4), "zeros")
    found = ic.diagnose(conv, (3, 4))
    assert found.condition > 1e14
    assert found.digits < 2
    assert "make the symmetric part of the kernel smaller" in found.advice[0]
    with pytest.warns(ic.IllConditionedWarning):
        conv.prepare((3, 4))


@both_paddings
def test_a_skew_kernel_loses_nothing_at_any_norm(padding: str) -> None:
    kernel = RNG.standard_normal((2, 2, 3))
    kernel = 10 * (kernel - kernel.transpose(1, 0, 2)[:, :, ::-1])
    conv, x = ic.ExponentialConv(kernel, padding=padding), RNG.standard_normal((3, 2, 9))
    y = conv.forward(x)
    assert np.abs(np.linalg.norm(y, axis=(1, 2)) / np.linalg.norm(x, axis=(1, 2)) - 1).max() < 1e-12
    assert np.abs(conv.inverse(y) - x).max() < 1e-12
    assert ic.diagnose(conv, (9,)).digits > 13
    bounded = ic.bounded(conv, 1.5).kernel
    assert np.abs(bounded - kernel).max() < 1e-12 * np.abs(kernel).max()


@pytest.mark.parametrize("norm", [1e-9, 1e-5, 1e-3, 0.5])
def test_a_series_has_enough_terms_at_small_norms(norm: float) -> None:
    """Of a shift around a circle, whose powers are shifts."""
    conv = ic.ExponentialConv(np.asarray([[[0.0, 0.0, norm]]]), padding="circular")
    found = conv.forward(np.eye(5)[:, None])[:, 0]
    truth = scipy.linalg.expm(norm * np.roll(np.eye(5), 1, axis=1))
    assert np.abs(found - truth.T).max() <= 1e-15 * np.abs(truth).max()


def test_no_number_comes_of_a_norm_that_is_none() -> None:
    for value in (math.nan, math.inf, 1e5):
        conv = ic.ExponentialConv(np.asarray([[[0.0, 0.0, value]]]))
        with np.errstate(invalid="ignore"):
            assert np.isnan(conv.forward(np.ones((1, 1, 4)))).all()
            assert np.isnan(conv.forward(np.ones((1, 1, 1)))).any() == False  # noqa: E712 - no tap
