"""Every mixture of borders in one to three dimensions, beside its dense matrix, pixel by pixel."""

import itertools
import math
from typing import Any

import array_api_strict as strict
import jax
import numpy as np
import pytest
import torch

import invconv as ic
from invconv_conformance.truth.oracle import affine
from tests.selected import slow

LIBRARIES = np.asarray, strict.asarray, torch.as_tensor
WORDS = ("periodic", "symmetric", "odd", "zero")
GRIDS = {1: ((5,), (1,)), 2: ((4, 3), (2, 5)), 3: ((2, 3, 2),)}  # odd, even, narrower than a kernel
CASES = [
    pytest.param(borders, grid, id=f"{'-'.join(borders)}-on-{'x'.join(map(str, grid))}")
    for ndim, grids in GRIDS.items()
    for borders in itertools.product(WORDS, repeat=ndim)
    for grid in grids
]


def conv_of(borders: tuple[str, ...], rng: np.random.Generator) -> ic.SymmetricConv:
    """Return an operator of two channels, with five taps an axis where it may have so many."""
    size = tuple({"zero": 2, "periodic": 4}.get(border, 3) for border in borders)
    kernel = 0.3 * rng.standard_normal((2, 2, *size)) / math.prod(size)
    place = tuple(1 if border == "periodic" else 0 for border in borders)
    turn = np.asarray([[0.6, 0.8], [-0.8, 0.6]])
    kernel.reshape(2, 2, -1)[:, :, np.ravel_multi_index(place, size)] += turn
    return ic.SymmetricConv(kernel, rng.standard_normal(2), boundary=borders)


# XLA compiles for a second or two a mixture
@pytest.mark.parametrize("libraries", [LIBRARIES, slow((jax.numpy.asarray,))])
@pytest.mark.parametrize(("borders", "grid"), CASES)
def test_a_mixture_is_its_dense_matrix(borders: Any, grid: Any, libraries: Any) -> None:
    conv = conv_of(borders, np.random.default_rng(0))
    matrix, shift = affine(conv, grid)
    x = np.random.default_rng(1).standard_normal((2, 2, *grid))
    rows = x.reshape(2, -1)
    y = (rows @ matrix.T + shift).reshape(x.shape)
    log_det = np.linalg.slogdet(matrix)[1]
    damped = np.concatenate([matrix, 0.3 * np.eye(len(matrix))]).astype(float)
    aims = np.concatenate([rows - shift, 0 * rows], axis=1).astype(float)
    least = np.linalg.lstsq(damped, aims.T)[0].T.reshape(x.shape)
    for given in (asarray(x) for asarray in libraries):
        op = conv.asarrays(given)
        for found, truth in (
            (op.forward(given), y),
            (op.inverse(op.forward(given)), x),
            (op.log_det(grid), log_det),
            (op.transpose().forward(given), (rows @ matrix).reshape(x.shape)),
            (op.least_squares(given, 0.3), least),
        ):
            assert isinstance(found, type(given))
            np.testing.assert_allclose(np.asarray(found), truth.astype(float), atol=1e-13)


@pytest.mark.parametrize("borders", list(itertools.product(WORDS, repeat=2)), ids="-".join)
def test_gradients_of_a_mixture_are_differences(borders: tuple[str, ...]) -> None:
    conv, grid = conv_of(borders, np.random.default_rng(1)), (3, 4)
    x = torch.randn(1, 2, *grid, dtype=torch.float64, requires_grad=True)
    kernel = torch.tensor(conv.kernel, requires_grad=True)
    op = conv.asarrays(x.detach())

    def run(kernel: Any, x: Any) -> Any:
        of = op.replace(kernel=kernel)
        return of.forward(x), of.inverse(x), of.log_det(grid), of.least_squares(x, 0.3)

    assert torch.autograd.gradcheck(run, (kernel, x), fast_mode=True)


@pytest.mark.parametrize("border", ["symmetric", "odd"])
def test_a_long_axis_needs_no_matrix(border: str) -> None:
    """One of all pairs of 200,000 points would take 320 GB."""
    conv = conv_of((border,), np.random.default_rng(2))
    y = np.random.default_rng(3).standard_normal((1, 2, 200_000))
    wanted = conv.inverse(y)
    for asarray in (torch.as_tensor, jax.numpy.asarray):
        op = conv.asarrays(asarray(y))
        np.testing.assert_allclose(op.inverse(asarray(y)), wanted, atol=1e-12)
