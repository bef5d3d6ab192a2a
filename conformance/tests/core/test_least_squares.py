"""Regularised inverses: beside the dense matrix, singular ones too; gradients by differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from jax.test_util import check_grads

import invconv as ic
from invconv_conformance.truth.oracle import affine
from tests.selected import CARRY

jax.config.update("jax_enable_x64", True)


def operator(cls: Any, channels: int, grid: tuple[int, ...], *, singular: bool) -> Any:
    """Return an operator with a bias; a singular one loses constant images, or most of them."""
    rng = np.random.default_rng(channels)
    conv = cls.init(channels, 3, len(grid), rng=rng)
    kernel = rng.standard_normal(conv.kernel.shape)
    if singular:
        taps = tuple(range(2, kernel.ndim))
        lost = kernel - kernel.mean(taps, keepdims=True)
        kernel = lost if cls is ic.PeriodicConv else np.ones_like(kernel)
    return conv.replace(kernel=kernel, bias=rng.standard_normal(channels))


@pytest.mark.parametrize("carry", CARRY.values(), ids=CARRY)
@pytest.mark.parametrize("cls", [ic.PeriodicConv, ic.SymmetricConv])
@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("damp", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize(("channels", "grid"), [(1, (7,)), (1, (4, 5)), (3, (3, 4))])
def test_it_is_the_dense_matrixs(
    carry: Callable[[Any], Any],
    cls: Any,
    singular: bool,
    damp: float,
    channels: int,
    grid: tuple[int, ...],
) -> None:
    conv = operator(cls, channels, grid, singular=singular)
    matrix, bias = affine(conv, grid)
    y = np.random.default_rng(0).standard_normal((2, channels, *grid))
    x = conv.asarrays(carry(y)).least_squares(carry(y), damp)
    u, s, vh = np.linalg.svd(matrix)
    s = np.where(s > 1e-12 * s.max(), s, 0)
    gains = np.divide(s, s**2 + damp**2, out=np.zeros_like(s), where=s > 0)
    wanted = (vh.T * gains) @ u.T @ (y.reshape(2, -1) - np.ravel(bias)).T
    size = np.abs(wanted).max()
    np.testing.assert_allclose(np.asarray(x).reshape(2, -1).T, wanted, rtol=0, atol=1e-8 * size)


def test_it_is_lsqr_and_float32_keeps_its_dtype() -> None:
    conv, rng = operator(ic.PeriodicConv, 1, (6, 6), singular=True), np.random.default_rng(0)
    matrix, bias = affine(conv, (6, 6))
    y = rng.standard_normal((1, 6, 6))
    known = scipy.sparse.linalg.lsqr(matrix, y.ravel() - np.ravel(bias), 0.1, 1e-15, 1e-15)[0]
    np.testing.assert_allclose(conv.least_squares(y, 0.1).ravel(), known, atol=1e-9)
    small = y.astype("float32")
    x = conv.asarrays(small).least_squares(small, 0.1)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.ravel(), known, rtol=0, atol=1e-4 * np.abs(known).max())


@pytest.mark.parametrize("channels", [1, 2])
def test_gradients(channels: int) -> None:
    kernel = operator(ic.PeriodicConv, channels, (5,), singular=False).kernel
    given = kernel, np.random.default_rng(0).standard_normal((1, channels, 5)), np.asarray(0.3)

    def solution(kernel: Any, y: Any, damp: Any) -> Any:
        return ic.PeriodicConv(kernel).least_squares(y, damp)

    tensors = [torch.tensor(v, requires_grad=True) for v in given]
    assert torch.autograd.gradcheck(solution, tensors)
    check_grads(jax.jit(solution), tuple(map(jax.numpy.asarray, given)), order=1)


def test_wrong_damping() -> None:
    conv = operator(ic.PeriodicConv, 1, (5,), singular=False)
    for damp in (-1.0, np.nan):
        with pytest.raises(ValueError, match="damp: expected a finite number of at least 0"):
            conv.least_squares(np.zeros((1, 5)), damp)
    with pytest.raises(TypeError, match="damp: expected an array of a library"):
        conv.least_squares(np.zeros((1, 5)), "little")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_kernel_of_nan_is_no_singular_one(channels: int) -> None:
    conv = ic.PeriodicConv(np.full((channels, channels, 3), np.nan))
    with pytest.raises(ValueError, match="kernel: expected finite numbers"):
        conv.least_squares(np.zeros((channels, 5)))


def test_images_of_any_size_and_none() -> None:
    conv = operator(ic.PeriodicConv, 2, (5,), singular=False)
    y = np.random.default_rng(0).standard_normal((2, 5))
    large = conv.replace(bias=np.zeros(2)).least_squares(2.0**1020 * y, 0.5)
    small = conv.replace(bias=np.zeros(2)).least_squares(y, 0.5)
    np.testing.assert_array_equal(large, 2.0**1020 * small)
    assert conv.least_squares(np.zeros((0, 2, 5))).shape == (0, 2, 5)
