"""Recursions over images beside the recursion pixel by pixel, which is the laws' truth."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

import invconv as ic
from invconv.arrays.registry import agnostic
from invconv.operators.propagation import Propagation
from invconv_conformance.cases.calls import _pixel_by_pixel
from tests.selected import CARRY, libraries

RNG = np.random.default_rng(0)
GRIDS = {1: (7,), 2: (4, 5), 3: (2, 3, 4)}


def reach() -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield offsets: both ways along every axis, rows, columns, corners, rasters, volumes, far."""
    yield from (((-1,),), ((2,), (5,)), ((-9,),))
    for s, t in itertools.product((1, -1), repeat=2):
        yield from (((s, 0), (0, t)), ((s, -1), (s, 0), (s, 1)), ((t, s), (0, s), (-t, s)))
        yield ((s, 0), (0, t), (s, t), (s, -2 * t))
    yield from (((-2, 3), (-1, 0)), ((-1, -3), (0, -1)), ((-1, 7), (0, 1)), ((0, -1), (-2, -1)))
    yield from (((0, 1, -1), (0, -1, -1), (-1, 1, 0)), ((-1, -1, 0), (1, -1, 0), (0, 0, 1)))
    yield from (((-1, 0, 0), (0, -1, 0), (0, 0, -1)), ((0, 0, -1), (0, 1, -1), (1, 0, -1)))


def drawn(offsets: Any, grid: Any, lead: Any = (2, 3)) -> tuple[Any, Any, Any]:
    x, gain = RNG.standard_normal((2, 3, *grid)), 1.5 + RNG.random((2, 1, *grid))
    return x, RNG.standard_normal((*lead, len(offsets), *grid)) / len(offsets), gain


@libraries
@pytest.mark.parametrize("forced", [False, True], ids=["native", "agnostic"])
def test_every_order_of_pixels(carry: Any, forced: bool) -> None:
    if forced and carry in (CARRY["jax"], CARRY["array_api_strict"]):
        pytest.skip("the same functions, but for a loop")
    step = 4 if carry is CARRY["jax"] else 1  # which compiles
    for n, offsets in itertools.islice(enumerate(reach()), 0, None, step):
        lead = ((2, 3), (1, 1), (2, 1))[n % 3]
        x, taps, gain = drawn(offsets, GRIDS[len(offsets[0])], lead)
        with agnostic(forced):
            h = ic.propagate(carry(x), carry(taps), offsets, carry(gain))
            again = ic.unpropagate(h, carry(taps), offsets, carry(gain))
        np.testing.assert_allclose(h, _pixel_by_pixel(x, taps, offsets, gain), rtol=1e-12)
        np.testing.assert_allclose(again, x, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_longer_than_vectors_in_any_number_of_images(dtype: str) -> None:
    """And an image has the same bits alone, in a batch, on two threads, and in every library."""
    for offsets in (*itertools.islice(reach(), 3, 15, 4), ((1, 2), (2, -20), (0, 1), (0, 18))):
        x, taps, gain = (v.astype(dtype) for v in drawn(offsets, (5, 43), (2, 3)))
        found = ic.propagate(x, taps, offsets, gain)
        wanted = _pixel_by_pixel(x.astype(float), taps.astype(float), offsets, gain)
        bound = 50 * np.finfo(dtype).eps * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=bound)
        one = ic.propagate(x[1:, 2:], taps[1:, 2:], offsets, gain[1:])
        assert np.array_equal(one, found[1:, 2:])
        for carry in (torch.as_tensor, jax.numpy.asarray):
            h = ic.propagate(carry(x), carry(taps), offsets)
            assert np.array_equal(h, ic.propagate(x, taps, offsets))


def test_threads_share_images() -> None:
    offsets = ((-1, 0), (0, -1))
    x, taps = RNG.standard_normal((3, 70, 60, 60)), RNG.random((3, 1, 2, 60, 60)) / 2
    wanted = ic.propagate(x, taps, offsets)
    ic.set_num_threads(3)
    try:
        assert np.array_equal(ic.propagate(x, taps, offsets), wanted)
    finally:
        ic.set_num_threads(1)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("offsets", [*itertools.islice(reach(), 1, 24, 9)], ids=str)
def test_gradients_of_any_order_are_those_of_differences(offsets: Any) -> None:
    x, taps, gain = (v[:2, :2] for v in drawn(offsets, {1: (5,), 2: (3, 2)}[len(offsets[0])]))
    for run, own in itertools.product((ic.propagate, ic.unpropagate), (2, 1)):
        call: Any = lambda x, taps, gain, run=run: run(x, taps, offsets, gain)  # noqa: E731
        arrays = x, taps[:own, :1], gain
        tensors = [torch.tensor(v, requires_grad=True) for v in arrays]
        assert torch.autograd.gradcheck(call, tensors, fast_mode=True, check_forward_ad=True)
        if own == 1:
            assert torch.autograd.gradgradcheck(call, tensors, fast_mode=True)
        if own == 1 and len(offsets) == 2:  # of both; JAX compiles
            check_grads(jax.jit(call), tuple(map(jax.numpy.asarray, arrays)), order=2)


@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
def test_compilers_and_maps_see_one_operation() -> None:
    offsets = ((-1, -1), (-1, 0), (-1, 1))
    x, taps, _ = drawn(offsets, (4, 5))
    wanted = _pixel_by_pixel(x, taps, offsets)
    run = partial(lambda offsets, x, taps: ic.propagate(x, taps, offsets), offsets)
    tensors = torch.as_tensor(x), torch.as_tensor(taps).requires_grad_()
    whole = torch.compile(run, backend="aot_eager", fullgraph=True)
    for call in (run, whole):
        torch.testing.assert_close(call(*tensors), torch.as_tensor(wanted))
    arrays = tuple(map(jax.numpy.asarray, (x, taps)))
    for call in (run, whole):
        (gradient,) = torch.autograd.grad(call(*tensors).square().sum(), tensors[1])
        slope = jax.grad(lambda taps: (run(arrays[0], taps) ** 2).sum())(arrays[1])
        np.testing.assert_allclose(gradient, slope, rtol=1e-10)
    assert "invconv_propagate_" in jax.jit(run).lower(*arrays).as_text()  # the compiled kernel
    tensors[1].requires_grad_(False)
    for vmap, given in ((jax.vmap, arrays), (torch.func.vmap, tensors)):
        np.testing.assert_allclose(vmap(run)(*given), wanted)
        np.testing.assert_allclose(vmap(run, (0, None))(given[0], given[1][0]), run(x, taps[:1]))
    by_taps = jax.vmap(run, (None, 0))(arrays[0][0], arrays[1])
    np.testing.assert_allclose(by_taps, run(x[[0, 0]], taps))


@libraries
def test_nan_stays_downstream_and_outside_is_zero(carry: Any) -> None:
    offsets = ((-1, 0), (0, 1))  # a corner at the top right
    x, taps, _ = drawn(offsets, (4, 20), (1, 3))
    taps[0, :, 0, 0, :], taps[0, :, 1, :, -1] = np.nan, np.inf  # of pixels outside
    x[1, 2, 1, 5] = np.nan
    h = np.asarray(ic.propagate(carry(x), carry(taps), offsets))
    lost = np.zeros(h.shape, bool)
    lost[1, 2, 1:, :6] = True
    assert np.array_equal(np.isnan(h), lost)
    assert np.isfinite(h[~lost]).all()


@libraries
def test_axes_of_no_size_and_narrow_numbers(carry: Any) -> None:
    for shape in ((0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)):
        taps = np.ones((1, 1, 2, *shape[2:]))
        found = ic.propagate(carry(np.ones(shape)), carry(taps), ((-1, 0), (0, -1)))
        assert tuple(found.shape) == shape
    x, taps = np.full((1, 3), 40000.0), np.asarray([[[0, 0, 1.0], [0, 0, -1]]])
    for kind in ("float16",) if carry in (np.asarray, CARRY["torch"]) else ():
        h = ic.propagate(carry(x.astype(kind)), carry(taps.astype(kind)), ((-1,), (-2,)))
        assert np.asarray(h).tolist() == x.tolist()  # though two of them are beyond float16


def test_the_order_is_the_shortest_in_memory() -> None:
    """Columns are turned into rows; what runs along rows stays as it is."""
    assert Propagation.of(((-1, -1), (0, -1), (1, -1))).axes == (1, 0)
    assert Propagation.of(((-1, 0), (0, -1))).axes is None
    assert Propagation.of(((0, -1),)).axes is None
