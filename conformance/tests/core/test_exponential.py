"""Exponentials of convolutions: against SciPy's, at large norms, and what `diagnose` says."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
import scipy.linalg
import torch

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.kernels.exponential import exponential, exponential_gram
from invconv.kernels.families import StencilFamily
from invconv.kernels.series import LARGEST, counts_for, reaches
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


def test_terms_are_as_many_as_leave_out_less_than_rounding() -> None:
    for eps in (2.0**-23, EPS, 2.0**-63):
        for norm in (0.0, 1e-9, 1e-3, 0.5, 4.0, 4.1, 30.0):
            steps, terms = counts_for(norm, eps)
            phi = norm / steps
            left_out = [
                phi ** (m + 1) / math.factorial(m + 1) * math.exp(phi) for m in (terms, terms - 1)
            ]
            assert phi <= 4
            assert left_out[0] <= eps * (1 + 1e-9)
            assert terms == 1 or left_out[1] > eps
    assert len(reaches(EPS)) == 32
    assert counts_for(LARGEST * 1.01, EPS).steps == counts_for(math.nan, EPS).steps == 0


def test_no_number_comes_of_a_norm_that_is_none() -> None:
    for value in (math.nan, math.inf, 1e5):
        conv = ic.ExponentialConv(np.asarray([[[0.0, 0.0, value]]]))
        with np.errstate(invalid="ignore"):
            assert np.isnan(conv.forward(np.ones((1, 1, 4)))).all()
            assert np.isnan(conv.forward(np.ones((1, 1, 1)))).any() == False  # noqa: E712 - no tap


@both_paddings
def test_derivatives_of_any_order_are_those_of_the_block_matrix(padding: str) -> None:
    grid, wrap = (2, 3), padding == "circular"
    conv = ic.ExponentialConv(0.5 * RNG.standard_normal((2, 2, 3, 3)), padding=padding)
    family = conv._family.linear
    assert isinstance(family, StencilFamily)
    assert family.wrap == wrap

    def dense(taps: Any) -> Any:
        kernel = taps.transpose(1, 2, 0).reshape(2, 2, 3, 3)
        return oracle.correlation(conv.replace(kernel=kernel), grid).astype(float)

    w, u, v = 0.5 * RNG.standard_normal((3, 9, 2, 2))
    x, y = RNG.standard_normal((2, 1, 2, *grid))
    m, a, b, o = dense(w), dense(u), dense(v), np.zeros((12, 12))
    first = scipy.linalg.expm_frechet(m, a, compute_expm=False) @ x.ravel()
    assert np.allclose(exponential(family, w, x, u).ravel(), first, rtol=1e-13, atol=1e-13)
    block = scipy.linalg.expm(np.block([[m, a, b, o], [o, m, o, b], [o, o, m, a], [o, o, o, m]]))
    second = block[:12, 36:] @ x.ravel()
    assert np.allclose(exponential(family, w, x, u, v).ravel(), second, rtol=1e-13, atol=1e-13)
    gradient = exponential_gram(family, w, x, y, v)
    assert math.isclose((gradient * u).sum(), y.ravel() @ second, rel_tol=1e-12)


def numbers(library: str, array: Any) -> Any:
    """Return an array of NumPy, torch or JAX."""
    makers = {"numpy": np.asarray, "torch": torch.as_tensor, "jax": jax.numpy.asarray}
    return makers[library](array)


def by_autodiff(library: str, conv: Any, x: Any, bar: Any, direction: str) -> Any:
    """Return the kernel's gradient of <bar, K x>, or of <bar, K^-1 x>, as the library finds it."""

    def product(kernel: Any) -> Any:
        return (getattr(conv.replace(kernel=kernel), direction)(x) * bar).sum()

    if library == "jax":
        return jax.jit(jax.grad(product))(conv.kernel)
    return torch.func.grad(product)(conv.kernel)


@pytest.mark.parametrize("norm", [1e-5, 6.0])  # a term more of the series shows; several steps
@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_the_kernels_gradient_is_scipys_at_tiny_and_large_norms(library: str, norm: float) -> None:
    grid, x = (2, 3), RNG.standard_normal((1, 2, 2, 3))
    bar, kernel = RNG.standard_normal(x.shape), RNG.standard_normal((2, 2, 3, 3))
    host = ic.ExponentialConv(norm * kernel / np.abs(kernel).sum(axis=(1, 2, 3)).max())
    units = np.eye(kernel.size).reshape(-1, *kernel.shape)
    basis = [oracle.correlation(host.replace(kernel=u), grid).astype(float) for u in units]
    m = oracle.correlation(host, grid).astype(float)
    with jax.enable_x64(True):
        x_there, bar_there = numbers(library, x), numbers(library, bar)
        conv = host.asarrays(like=x_there)
        for direction, sign in (("forward", 1), ("inverse", -1)):
            by_m: Any = scipy.linalg.expm_frechet(
                sign * m.T, sign * np.outer(bar, x), compute_expm=False
            )
            truth = np.asarray([(by_m * u).sum() for u in basis]).reshape(kernel.shape)
            gradients, _ = getattr(conv, f"{direction}_vjp")(x_there, bar_there)
            found = [gradients["kernel"]]
            if library != "numpy":
                found.append(by_autodiff(library, conv, x_there, bar_there, direction))
            for one in found:
                assert np.abs(to_numpy(one) - truth).max() < 1e-13 * np.abs(truth).max()


def test_init_is_nearly_the_identity() -> None:
    kernel = ic.ExponentialConv.init(24, 5, rng=RNG).kernel
    assert abs(kernel.std() * 5 / 0.02 - 1) < 0.05
    assert abs(kernel.mean()) < 1e-4


def test_the_plan_says_what_runs() -> None:
    prepared = ic.ExponentialConv(np.full((1, 1, 3), 2.0)).prepare((9,))
    assert prepared.plan == {"method": "Taylor series of exp(-M)", "times": 1, "terms": 33}
