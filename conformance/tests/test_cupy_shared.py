"""The correlations that NumPy and CuPy share; NumPy's solves are stable, and keep no one's values.

The solves of CuPy, which NumPy has too where no kernel is compiled, are in `tests.test_pitched`.
"""

from __future__ import annotations

import pickle
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv import windows
from invconv.primitives import correlate as correlate_primitive
from invconv.registry import agnostic
from invconv.workspaces import Workspaces
from invconv_conformance.case import with_bias


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


@pytest.mark.parametrize("wrap", [False, True])
def test_correlations_do_not_depend_on_how_many_samples_run_at_a_time(wrap: bool) -> None:
    rng = np.random.default_rng(0)
    conv = with_bias(ic.PeriodicConv.init(2, 3, rng=rng), rng)
    x, y_bar = rng.standard_normal((2, 5, 2, 4, 6))
    stencil = conv._stencil()
    with agnostic():
        expected = correlate_primitive(stencil, x, wrap=wrap)
    for window_bytes in (1, 2 * 9 * 2 * 24 * 8, 2**28):
        options: Any = {"wrap": wrap, "window_bytes": window_bytes}
        y = windows.correlate(stencil, x, **options)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
        taps_bar = windows.correlate_kernel_vjp(x, y_bar, stencil.offsets, **options)
        np.testing.assert_allclose(
            np.vdot(taps_bar, stencil.taps), np.vdot(y_bar, expected), rtol=1e-12
        )


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


def test_workspaces_are_let_go_of_oldest_first() -> None:
    kept: Workspaces[Any] = Workspaces()
    made: list[None] = []

    def make() -> Any:
        made.append(None)
        return SimpleNamespace(nbytes=2**25)

    def use(key: str) -> Any:
        taken = kept.take(key, make)
        kept.give_back(key, taken)
        return taken

    first = use("a")
    use("b")
    assert use("a") is first
    use("c")  # and "b" goes, which was used longest ago
    assert use("a") is first
    assert len(made) == 3
    use("b")
    assert len(made) == 4
