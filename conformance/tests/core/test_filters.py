"""Recursive filters, point-spread functions and borders: SciPy's, or their dense matrices."""

import itertools
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import scipy.interpolate
import scipy.ndimage
import scipy.signal
import torch
from jax.test_util import check_grads

import invconv as ic
from invconv.arrays.namespaces import dtype_name
from invconv.arrays.registry import agnostic
from invconv_conformance.cases.calls import CALLS
from invconv_conformance.libraries import KNOWN
from invconv_torch import primitives as on_torch
from tests.selected import libraries

RNG = np.random.default_rng(0)


def alike(found: Any, wanted: Any) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-10, atol=1e-12)


def both(carry: Any, name: str, *arrays: Any, **options: Any) -> Any:
    """Return what SciPy's function of a name gives, which ours of a library's arrays must give."""
    carried = {n: carry(v) if n == "zi" else v for n, v in options.items()}
    found = getattr(ic, name)(*map(carry, arrays), **carried)
    wanted = getattr(scipy.signal, name)(*arrays, **options)
    for one, other in zip(found, wanted, strict=True) if "zi" in options else [(found, wanted)]:
        alike(one, other)
    return wanted


@libraries
def test_pieces_are_the_whole_and_the_state_is_its_own(carry: Any) -> None:
    sos, x = scipy.signal.butter(6, 0.1, output="sos"), RNG.standard_normal((2, 1000))
    state = RNG.standard_normal((3, 2, 2))
    y, kept = ic.sosfilt(sos, carry(x[:, :0]), zi=carry(state))
    assert y.shape == (2, 0)
    assert np.array_equal(np.asarray(kept), state)
    for piece in np.split(x, [300, 301], axis=1):
        _, state = both(carry, "sosfilt", sos, piece, zi=state)
    first = np.ones((2, 1))
    kept = ic.lfilter([1.0], [1.0, -0.5], x[:, :0], zi=first)[1]
    kept += 1  # it is not the caller's own
    assert (first == 1).all()
    assert ic.lfilter(np.ones((0, 2)), [1.0, 0.5], x[:0]).shape == (0, 1000)
    assert ic.lfilter_zi([1.0], np.ones((0, 2))).shape == (0, 1)
    b, none = torch.ones(1, requires_grad=True), torch.ones(0, 5)
    empty = ic.lfilter(b, [1.0, -0.5], none)
    empty.sum().backward()
    assert empty is not none
    assert b.grad == 0
    both(carry, "lfilter", np.hanning(60), np.ones(1), x)  # which compile to no code of their own


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_signal_has_the_same_bits_in_a_batch_and_in_every_library(dtype: str) -> None:
    b, a, sos = *scipy.signal.butter(4, 0.2), scipy.signal.butter(4, 0.2, output="sos")
    x = RNG.standard_normal((11, 37)).astype(dtype)
    for run in (partial(ic.lfilter, b, a), partial(ic.sosfilt, sos)):
        wanted = np.stack([run(signal) for signal in x])
        for carry in (np.asarray, torch.as_tensor, jax.numpy.asarray):
            assert np.array_equal(np.asarray(run(carry(x))), wanted)


@libraries
@pytest.mark.parametrize("shape", [(37, 2), (3, 37, 11), (2, 37, 3, 2)])
def test_signals_are_filtered_where_they_lie(shape: Any, carry: Any) -> None:
    """In any order of axes, and backwards, by a cascade of several parts, too."""
    x, sos = RNG.standard_normal(shape), scipy.signal.butter(22, 0.4, output="sos")
    backwards = [x, x[:, ::-1], np.flip(x)] if carry is np.asarray else [x]
    for given, axis in itertools.product([*backwards, np.asfortranarray(x)], range(x.ndim)):
        states = RNG.standard_normal((11, *shape[:axis], 2, *shape[axis + 1 :]))
        found = ic.sosfilt(sos, carry(given), axis=axis, zi=carry(states))
        wanted = scipy.signal.sosfilt(sos, given, axis=axis, zi=states)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(np.asarray(one), other, atol=1e-10 * np.abs(other).max())
        both(carry, "lfilter", *scipy.signal.butter(3, 0.2), given, axis=axis)


@pytest.mark.parametrize("carry", [np.asarray, torch.as_tensor, jax.numpy.asarray])
def test_half_types_are_rounded_at_the_end_alone(carry: Any) -> None:
    """The odd continuation of these signals, and the sums of these numbers, are beyond float16."""
    x, b, a = 30000 * np.cos(np.arange(100)), np.asarray([1e4, 4e4, 4e4]), np.asarray([1, 0.5, 0.5])
    x, sos = x.astype("float16").astype(float), np.asarray([[0.5, 0, 0, 1, -0.5, 0]])
    for name, arrays in (
        ("filtfilt", (sos[0, :3], sos[0, 3:], x)),
        ("sosfiltfilt", (sos, x)),
        ("lfilter_zi", (b, a)),
        ("sosfilt_zi", ([[*b, *a]],)),
    ):
        found = getattr(ic, name)(*(carry(np.asarray(v, "float16")) for v in arrays))
        assert dtype_name(found.dtype) == "float16"
        wanted = getattr(scipy.signal, name)(*arrays)
        np.testing.assert_allclose(np.asarray(found, float), wanted, rtol=2**-11, atol=0.01)
    assert ic.lfilter_zi(np.ones(1, "float16"), [1.0, 0.5]).dtype == np.float16  # of the first one


LAST = {call.name.partition("-")[0]: call for call in CALLS if not call.looks}


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", LAST)
def test_every_function_keeps_a_narrow_dtype(name: str, dtype: str, library: str) -> None:
    """With the values of float64, which the law "function.value" has, to rounding."""
    call, results = LAST[name], []
    for kind in (dtype, "float64"):
        rounded = {n: a.astype(dtype) for n, a in call.arrays.items()}
        given = {n: KNOWN[library].asarray(a, kind, "cpu") for n, a in rounded.items()}
        found = call.function(**given)
        results.append(found if isinstance(found, tuple) else (found,))
        assert {dtype_name(array.dtype) for array in results[-1]} == {kind}
    for one, wanted in zip(*(map(np.asarray, found) for found in results), strict=True):
        size = float(np.abs(wanted).max() * np.finfo(dtype).eps)
        np.testing.assert_allclose(one, wanted, rtol=0, atol=50 * size)


@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
def test_filters_have_the_gradients_of_differences(monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    b, x, zi = (rng.standard_normal(shape) for shape in (3, (2, 7), (2, 2)))
    a = np.asarray([1.3, 0.2, -0.1])
    run: Any = lambda b, a, x, zi: ic.lfilter(b, a, x, zi=zi)  # noqa: E731
    tensors = [torch.tensor(v, requires_grad=True) for v in (b, a, x, zi)]
    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)
    long = torch.randn(11), tensors[1].detach(), torch.randn(2, 45), torch.randn(2, 10)
    assert torch.autograd.gradcheck(run, [v.double().requires_grad_() for v in long])
    whole = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(*tensors), run(*tensors))
    for n in (3, 4):  # a filter per signal, of sizes that the compiler makes dynamic
        many = torch.randn(n, 3, dtype=torch.float64), tensors[1], *torch.randn(2, n, 2).double()
        torch.testing.assert_close(whole(*many), run(*many))
    mapped = torch.func.vmap(lambda x, zi: run(*tensors[:2], x, zi)[0])(*tensors[2:])
    torch.testing.assert_close(mapped, run(*tensors)[0])
    filtered = jax.jit(lambda x: run(*map(jax.numpy.asarray, (b, a)), x, None))(x)
    alike(np.asarray(filtered, np.float64), scipy.signal.lfilter(b, a, x))
    arrays = tuple(map(jax.numpy.asarray, (b, a, x, zi)))
    each = jax.vmap(run, (None, 0, 1, None))(b, np.stack([a, 2 * a]), np.stack([x, -x], 1), zi)
    for n, wanted in enumerate((run(b, a, x, zi), run(b, 2 * a, -x, zi))):
        np.testing.assert_allclose(each[0][n], wanted[0], rtol=1e-12)
    by_x = jax.grad(lambda b, x: run(b, arrays[1], x, None).sum(), argnums=1)
    alike(jax.vmap(by_x)(arrays[0] * x[:, :1], arrays[2]), by_x(b, x) * x[:, :1])
    check_grads(jax.jit(run), arrays, order=2)
    assert "invconv_filter_" in jax.jit(run).lower(*arrays).as_text()  # the compiled kernel
    monkeypatch.setattr(on_torch, "reason", lambda size: "absent")  # without it
    assert torch.autograd.gradcheck(run, tensors)


def test_a_recursion_that_grows_is_no_inverse_that_is_lost() -> None:
    x = np.ones((1, 40))
    with agnostic():
        alike(ic.lfilter([1.0], [1.0, -3.0], x), scipy.signal.lfilter([1.0], [1.0, -3.0], x))


def test_sections_of_first_order_shorten_the_default_of_padlen() -> None:
    """As many as b has, or a, whichever has fewer; of several filters, too."""
    sos = [[1, 0, 0, 1, -0.5, 0], [0.5, 0.1, 0, 1, 0.2, 0.1]]
    x = np.random.default_rng(0).standard_normal((2, 30))
    alike(ic.sosfiltfilt([sos, sos], x), scipy.signal.sosfiltfilt(sos, x))


def test_poles_may_reach_beyond_two_blocks_of_samples() -> None:
    a, x = np.append(1.0, np.full(130, 1e-3)), np.ones((1, 200))
    alike(ic.varying_lfilter([[1.0]], a[None], x), scipy.signal.lfilter([1.0], a, x))


@libraries
def test_coefficients_may_vary_over_two_samples(carry: Any) -> None:
    b, a = (carry(np.asarray(v)) for v in ([[1.0, 0.5], [2.0, 1.0]], [[1.0, 0.0], [1.0, -1.0]]))
    assert np.asarray(ic.varying_lfilter(b, a, carry(np.ones((1, 2))))).tolist() == [[1.0, 4.0]]


@pytest.mark.parametrize("mode", ["mirror", "reflect", "grid-wrap", "grid-mirror"])
@pytest.mark.parametrize("order", range(2, 6))
def test_splines_are_ndimages(order: int, mode: str) -> None:
    """And on few pixels, where SciPy's "reflect" is not exact, they give the samples again."""
    x = np.random.default_rng(0).standard_normal((3, 50, 900))  # more than run at once
    theirs: Any = scipy.ndimage.spline_filter
    wanted = [theirs(image, order, mode=mode) for image in x]
    np.testing.assert_allclose(ic.spline_filter(x, order, mode, (1, 2)), wanted, atol=1e-12)
    found = ic.spline_filter(x.astype("float32"), order, mode, (1, 2))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=3e-5)
    assert not np.shares_memory(ic.spline_filter(x, axes=()), x)
    if order == 3:
        boundary = {"mirror": "mirror", "grid-wrap": "periodic"}.get(mode, "symmetric")
        blur = ic.from_psf(np.outer([1, 4, 1], [1, 4, 1]) / 36, boundary=boundary)
        np.testing.assert_allclose(blur.inverse(x[:1]), wanted[:1], atol=1e-12)
    spline = scipy.interpolate.BSpline.basis_element(np.arange(order + 2.0), extrapolate=False)
    samples = np.nan_to_num(spline((order + 1) / 2 + np.arange(-2, 3)))
    border: Any = {"mirror": "reflect", "grid-wrap": "wrap"}.get(mode, "symmetric")  # numpy.pad's
    for n in (1, 2, 3, 9):
        wide = np.pad(ic.spline_filter(x[0, :, :n], order, mode, 1), ((0, 0), (2, 2)), border)
        again = np.lib.stride_tricks.sliding_window_view(wide, 5, axis=1) @ samples
        np.testing.assert_allclose(again, x[0, :, :n], atol=1e-13)


def test_a_function_of_a_file_and_one_that_is_learnt() -> None:
    ring = ic.from_psf([0.1, 0.3, 0.1, 0.3, 0.1])  # whose outer half looks whole: no warning
    assert ring.forward(np.ones((1, 9))) == pytest.approx(0.9 * np.ones((1, 9)))
    of_file = ic.from_psf(np.ones((3, 3), ">f4"), like=torch.zeros(1))
    assert of_file.kernel.dtype == torch.float32
    tilted = ic.from_psf([1 + 4e-7, 2, 1])  # nearly even: made so
    np.testing.assert_allclose(tilted.kernel, [[[2, 1 + 2e-7]]], rtol=1e-12)
    grown = torch.tensor([0.2, 1.0, 0.2], requires_grad=True)
    ic.from_psf(grown, boundary="periodic").forward(torch.ones(1, 4)).sum().backward()
    torch.testing.assert_close(grown.grad, torch.full((3,), 4.0))


@pytest.mark.parametrize("border", ["symmetric", "odd"])
def test_a_long_axis_needs_no_matrix(border: str) -> None:
    conv = ic.SymmetricConv.init(2, 3, 1, boundary=border, rng=np.random.default_rng(2))
    y = np.random.default_rng(3).standard_normal((1, 2, 200_000))
    wanted = conv.inverse(y)
    for asarray in (torch.as_tensor, jax.numpy.asarray):
        op = conv.asarrays(asarray(y))
        np.testing.assert_allclose(op.inverse(asarray(y)), wanted, atol=1e-12)
