"""PLU and QR 1x1 convolutions keep the digits of their factors, in gradients and conditions too."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic

SHAPE = (3, 5, 2, 3)


def plu(rng: np.random.Generator) -> ic.PLUConv1x1:
    """Return factors of a condition of some 1e5, of which W itself would lose half the digits."""
    conv = ic.PLUConv1x1.init(5, rng=rng)
    return conv.replace(
        lower=2 * rng.standard_normal((5, 5)), log_scale=np.asarray([0, -2.0, 1, -9, 2])
    )


def qr(rng: np.random.Generator) -> ic.QRConv1x1:
    conv = ic.QRConv1x1.init(5, rng=rng)
    scale = np.asarray([1e-2, 3.0, -1e-3, 1.0, 20.0])
    return conv.replace(upper=rng.standard_normal((5, 5)), scale=scale)


def product(conv: Any, p: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return W from the definitions, in torch."""
    one = torch.eye(5, dtype=torch.float64)
    if isinstance(conv, ic.PLUConv1x1):
        upper = p["upper"].triu(1) + torch.diag(
            torch.from_numpy(conv.sign.astype(float)) * p["log_scale"].exp()
        )
        return ((p["lower"].tril(-1) + one) @ upper)[torch.from_numpy(conv.permutation)]
    q = one
    for v in p["reflectors"]:
        q = q @ (one - 2 * torch.outer(v, v) / (v @ v))
    return q @ (p["upper"].triu(1) + torch.diag(p["scale"]))


@pytest.mark.parametrize("kind", [plu, qr])
@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_an_inverse_keep_the_digits_of_float32(kind: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    conv = kind(rng).asarrays(np.empty(0, np.float32))
    y, x_bar = (rng.standard_normal(SHAPE).astype(np.float32) for _ in range(2))
    p = {
        n: torch.from_numpy(a.astype(float)).requires_grad_() for n, a in conv.parameters().items()
    }
    given = torch.from_numpy(y.astype(float)).requires_grad_()
    w = product(conv, p)
    assert 1e4 < float(torch.linalg.cond(w.detach())) < 1e9
    x = torch.linalg.solve(w, given.reshape(3, 5, 6)).reshape(SHAPE)
    truth = torch.autograd.grad(x, (given, *p.values()), torch.from_numpy(x_bar.astype(float)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, y_bar = conv.inverse_vjp(y, x_bar)
    for name, right in zip(("y", *p), truth, strict=True):
        got = y_bar if name == "y" else found[name]
        error = np.abs(got - right.numpy()).max() / float(right.abs().max())
        assert error < 3e-5, (name, error)


def almost_singular(pivot: float) -> ic.PLUConv1x1:
    """Return W = [[1, 1], [1, 1 + pivot]] by its factors; W rounds to a singular matrix."""
    one = np.asarray([[0.0, 0], [1, 0]])
    return ic.PLUConv1x1(np.arange(2), one, one.T, np.ones(2), np.asarray([0.0, math.log(pivot)]))


@pytest.mark.filterwarnings("ignore::invconv.IllConditionedWarning")
def test_a_matrix_that_rounds_to_a_singular_one_has_a_gradient() -> None:
    conv = almost_singular(1e-20)
    _, y_bar = conv.inverse_vjp(np.ones((1, 2, 1)), np.ones((1, 2, 1)))
    np.testing.assert_allclose(y_bar[0, :, 0], [1, 0], atol=1e-12)  # W^-T (1, 1), exactly
    _, y_bar = ic.Inverse(conv).forward_vjp(np.ones((1, 2, 1)), np.ones((1, 2, 1)))
    np.testing.assert_allclose(y_bar[0, :, 0], [1, 0], atol=1e-12)


@pytest.mark.parametrize("grid", [(8, 8), (40, 40)])
def test_a_condition_by_norms_sees_the_factors(grid: tuple[int, int]) -> None:
    """Exact on the small grid, an estimate by the transpose on the large one."""
    chain = ic.Chain([almost_singular(1e-17), ic.ActNorm.init(2)])
    assert chain.condition(grid) == pytest.approx(4e17)
