"""Random operators of every family: values, inverses and log-determinants against the oracle."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest

import invconv as ic
from invconv.arrays.registry import agnostic
from invconv_conformance.cases import drawn
from invconv_conformance.cases.drawn import FAMILIES
from invconv_conformance.truth import oracle

EPS_BOUND = {"float64": 1e-12, "float32": 2e-6}
ENOUGH = 8  # of 150 draws, which are well and badly conditioned, up to overflow


def require_that_it_is_the_oracles(
    host: ic.InvertibleConv, grid: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> bool:
    """Compare where the condition leaves digits, and tell whether it does."""
    with np.errstate(all="ignore"):  # of what leaves the range, which is not compared
        conv = host.asarrays(np.empty(0, dtype))
        matrix, shift = oracle.affine(conv.asarrays(np.empty(0)), grid)
        if not np.isfinite(matrix).all():
            return False
        values = np.linalg.svd(matrix, compute_uv=False)
        condition = float(values[0] / values[-1]) if values[-1] > 0 else math.inf
    within_range = condition < math.inf and np.abs(np.log(values)).max() < 30
    if not within_range or not condition * EPS_BOUND[dtype] < 1e-3:
        return False
    bound = EPS_BOUND[dtype] * condition
    batch = (2,) if host.ndim is None else tuple(int(n) for n in rng.integers(0, 3, 2))
    x = rng.standard_normal((*batch, host.channels, *grid)).astype(dtype)
    rows = x.reshape(math.prod(batch), len(matrix)).astype(float)
    expected = (rows @ matrix.T + shift).reshape(x.shape)
    with agnostic() if rng.random() < 0.5 else contextlib.nullcontext():
        y, log_det = conv.forward_and_log_det(x)
        back = conv.prepare(grid, check=False).inverse(expected.astype(dtype))
    assert float(np.linalg.norm(y - expected)) <= bound * float(np.linalg.norm(expected))
    assert float(np.linalg.norm(back - x)) <= 3 * bound * float(np.linalg.norm(x))
    rounding = bound * max(1.0, float(np.abs(np.log(values)).sum()))
    if isinstance(host, ic.PeriodicConv):
        # taps that fall onto one pixel may cancel; the rounding of each stays, in every logarithm
        reach = float(np.abs(host.kernel).sum() / values[-1])
        rounding += float(np.finfo(dtype).eps) * len(matrix) * reach
    assert np.all(np.abs(log_det - np.linalg.slogdet(matrix)[1]) <= rounding)
    assert log_det.shape == batch
    assert y.dtype == back.dtype == log_det.dtype == np.dtype(dtype)
    return True


@pytest.mark.parametrize("dtype", EPS_BOUND)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_operator(family: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "LARGE", 300)  # unknowns
    compared, draws = 0, np.random.default_rng([7, list(FAMILIES).index(family)]).spawn(150)
    while compared < ENOUGH:
        rng = draws.pop()
        conv, grid = FAMILIES[family](rng)
        compared += require_that_it_is_the_oracles(conv, grid, dtype, rng)
