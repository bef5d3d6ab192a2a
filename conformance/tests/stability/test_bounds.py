"""Bounds from both sides: never below a dense matrix of float64, and attained, or nearly so."""

import math
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.families import path as paths
from invconv.families.exponential import Exponential
from invconv.families.family import SHIFT
from invconv.families.pointwise import MATRIX, Circulant, Householder, Scale, Triangular
from invconv.operators.base.conditions import linear_maps
from invconv.operators.base.judgement import bound
from invconv.trust.bound import UNBOUNDED, Bounds, error_bound, of_taps
from invconv.trust.gains import norm_bound
from invconv_conformance.cases.table import Case
from tests.selected import FEW

JUST = 1 + 1e-9


def row_sum(matrix: Any) -> float:
    return float(np.linalg.norm(matrix, np.inf))


def dense(factor: Any, channels: int, shape: tuple[int, ...]) -> Any:
    n = channels * math.prod(shape)
    apply, _ = linear_maps([factor._replace(inverted=False)], shape)
    return apply(np.eye(n).reshape(n, channels, *shape)).reshape(n, n).T


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_no_factor_exceeds_its_bounds(case: Case) -> None:
    """Those of one matrix at every pixel are its norms, and the products are counted."""
    conv = case.conv()
    for factor in paths.linear(conv._path()):
        matrix = dense(factor, conv.channels, case.spatial_shape)
        gain, back = row_sum(matrix), row_sum(np.linalg.inv(matrix))
        found = factor.family.bounds(factor.w)
        assert gain <= found.gain * JUST
        assert back <= found.back * JUST
        if factor.family.pixelwise:
            assert found.gain == pytest.approx(gain)
            assert found.back == pytest.approx(back, rel=1e-6)
        if found.back < math.inf and not isinstance(factor.family, Exponential):
            assert found.terms >= np.count_nonzero(matrix, axis=1).max()


def test_bounds_are_attained() -> None:
    """By long rows whose products have no signs to cancel."""
    taps = ic.AutoregressiveConv(np.asarray([[[4.0, -1.0, -1.0]]]))
    rows = np.asarray([[0.3, 0.4], [0.7, 0.0]])
    series = ic.ExponentialConv(rows[..., None] * [0.0, 0.0, -1.0], padding="circular")
    for conv in (taps, series):
        (factor,) = conv._path()
        matrix, found = dense(factor, conv.channels, (60,)), factor.family.bounds(factor.w)
        assert row_sum(matrix) == pytest.approx(found.gain)
        assert row_sum(np.linalg.inv(matrix)) == pytest.approx(found.back)
    assert found.terms == pytest.approx((2 * 3 + 2) * (0.7 + 1) + 2)
    uneven, others = np.diag([1.0, 0.125]), np.full((3, 2, 2), 1 / 64)
    assert of_taps(uneven, others).terms == (2 * (3 + 1) + 2) * 8
    assert of_taps(uneven, 0.99 * others * 64 / 48).back == pytest.approx(8 / 0.01)
    assert of_taps(uneven, others * 64 / 48) == UNBOUNDED
    for number in (0.0, math.nan, math.inf):
        assert bound(ic.AutoregressiveConv(np.full((2, 2, 3), number))) == math.inf
    assert SHIFT.bounds(np.asarray([0.5, -2.0])) == Bounds(1.0, 1.0, 1, 2.0)
    vectors, matrix = 1 + np.eye(3, 4), np.eye(4)
    for family, w, terms in (
        *((Householder(), vectors, 4 + 3 + 2), (Circulant(), vectors[0], 2 * 4)),
        *((Scale(), vectors[0], 2), (Triangular(True), matrix, 4 + 2), (MATRIX, matrix, 4**2 + 2)),
    ):
        assert family.bounds(w).terms == terms


@pytest.mark.parametrize("solves", [False, True])
def test_errors_are_carried_on_by_the_other_steps(solves: bool) -> None:
    """The recursion is solved: each rounding times the gains after it, and all inverses."""
    gains, backs, terms, biases = np.random.default_rng(0).uniform(0.5, 3, (4, 5))
    numbers = zip(gains, backs, terms, biases, strict=True)
    steps = [Bounds(*one, solves_forward=solves) for one in numbers]
    sizes = [
        gains[: i + 1].prod() + sum(biases[j] * gains[j + 1 : i + 1].prod() for j in range(i + 1))
        for i in range(5)
    ]
    loss = gains * backs if solves else 1.0
    forward = sum((loss * terms * sizes)[i] * gains[i + 1 :].prod() for i in range(5))
    undone = sum(backs[: i + 1].prod() * terms[i] * sizes[i] for i in range(5))
    assert error_bound(steps) == pytest.approx(backs.prod() * forward + undone)
    one = steps[0]
    turned = Bounds(one.back, one.gain, one.terms, one.back * one.bias, not solves)
    assert one.inverted() == turned
    for step in (Bounds(1e30, 1.0, 1), Bounds(1.0, 1e30, 1), Bounds(1.0, 1.0, 1, 1e30)):
        assert error_bound([step]) == math.inf
    assert error_bound([Bounds(0.9e30, 1.0, 1)]) == pytest.approx(1.8e30)


@pytest.mark.parametrize("channels", [1, 2, 7, 48])
def test_a_norm_is_bounded_as_its_docstring_says(channels: int) -> None:
    """Within C^(1/64), which an orthogonal matrix attains, and a matrix of rank 1 does not need."""
    rng = np.random.default_rng(channels)
    any_, column = rng.standard_normal((channels, channels)), rng.standard_normal((channels, 1))
    turn = np.linalg.qr(any_)[0]
    for size in (1e-200, 1.0, 1e200):
        for matrix, share in ((any_, None), (turn, 1.0), (column @ column.T, 0.0)):
            truth, most = np.linalg.norm(matrix, 2), channels ** (1 / 64)
            found = float(norm_bound(np.stack([size * matrix, matrix]))[0]) / size
            assert truth / JUST <= found <= truth * most * JUST
            if share is not None:
                assert found == pytest.approx(truth * most**share, rel=1e-9)
    assert norm_bound(0 * any_[None])[0] == 0


@pytest.mark.parametrize("gain", [1.5, 10.0])
def test_a_bounded_exponential_nearly_attains_its_gain(gain: float) -> None:
    conv = ic.bounded(ic.ExponentialConv(np.full((1, 1, 1), -20.0)), gain)
    assert 0.99 * gain < conv.inverse(np.ones((1, 1)))[0, 0] <= gain
