"""NumPy's solves are stable, and keep no values of one call for the next."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

import invconv as ic


@pytest.mark.parametrize("left", [-1.5, -3.0, -29.6])
def test_growing_inverses_are_backward_stable(left: float) -> None:
    kernel = np.zeros((1, 1, 1, 2))
    kernel[0, 0, 0] = [1.0, left]
    conv = ic.AutoregressiveConv(kernel)
    x = np.random.default_rng(0).standard_normal((2, 1, 3, 16))
    for y in (x, conv.forward(x)):
        back = conv.prepare((3, 16), check=False).inverse(y)
        size = (1 + abs(left)) * np.abs(back).max() + np.abs(y).max()
        assert np.abs(conv.forward(back) - y).max() <= 4 * np.finfo(np.float64).eps * size


def test_an_ill_conditioned_pixel_is_solved_with_and_not_inverted() -> None:
    conv = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0))
    assert conv.prepare((4, 4)).plan["at the pixel"] == "cached inverse"
    kernel = conv.kernel.copy()
    kernel[2, 2, 0, 0] = 1e-3
    ill = conv.replace(kernel=kernel)
    assert ill.prepare((4, 4)).plan["at the pixel"] == "triangular solve"


def test_solvers_can_be_pickled_without_their_buffers() -> None:
    conv: Any = ic.AutoregressiveConv.init(2, rng=np.random.default_rng(0))
    y = np.random.default_rng(1).standard_normal((64, 2, 16, 16))
    prepared = conv.prepare((16, 16))
    x = prepared.inverse(y)
    stored = pickle.dumps(prepared)
    assert len(stored) < 5000
    np.testing.assert_array_equal(pickle.loads(stored).inverse(y), x)


def test_results_are_no_views_of_a_buffer_that_is_used_again() -> None:
    conv = ic.AutoregressiveConv.init(1, rng=np.random.default_rng(0))
    y = np.random.default_rng(1).standard_normal((2, 1, 1, 1, 5))
    first = conv.inverse(y[0])
    before = first.copy()
    conv.inverse(y[1])
    np.testing.assert_array_equal(first, before)


def test_nan_in_one_solve_is_not_left_for_the_next() -> None:
    conv = ic.AutoregressiveConv.init(2, rng=np.random.default_rng(0))
    y = np.random.default_rng(1).standard_normal((3, 2, 4, 5))
    clean = conv.inverse(y)
    spoilt = y.copy()
    spoilt[1] = np.nan
    found = conv.inverse(spoilt)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], clean[[0, 2]])
    np.testing.assert_array_equal(conv.inverse(y), clean)


def test_threads_have_buffers_of_their_own() -> None:
    conv = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((4, 8, 3, 16, 16))
    y = [conv.forward(part) for part in x]
    prepared, wrong = conv.prepare((16, 16)), []

    def solve(i: int) -> None:
        for _ in range(20):
            if np.abs(prepared.inverse(y[i]) - x[i]).max() > 1e-10:
                wrong.append(i)

    threads = [threading.Thread(target=solve, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
