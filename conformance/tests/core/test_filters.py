"""Recursive filters, point-spread functions and borders: SciPy's, or their dense matrices."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from jax.test_util import check_grads

import invconv as ic
from invconv.arrays.registry import agnostic
from invconv_torch.native import filters
from tests.selected import libraries


def alike(found: Any, wanted: Any) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-10, atol=1e-12)


@libraries
def test_pieces_are_the_whole_and_the_state_is_its_own(carry: Any) -> None:
    sos, rng = scipy.signal.butter(6, 0.1, output="sos"), np.random.default_rng(0)
    x, state = rng.standard_normal((2, 1000)), np.zeros((3, 2, 2))
    whole = scipy.signal.sosfilt(sos, x)
    pieces = []
    for part in np.split(x, [0, 300, 301], axis=1):  # the first is empty
        y, state = ic.sosfilt(sos, carry(part), zi=carry(np.asarray(state)))
        pieces.append(np.asarray(y))
    alike(np.concatenate(pieces, axis=1), whole)
    first = np.ones((2, 1))
    kept = ic.lfilter([1.0], [1.0, -0.5], x[:, :0], zi=first)[1]
    kept += 1  # it is not the caller's own
    assert (first == 1).all()
    assert ic.lfilter(np.ones((0, 2)), [1.0, 0.5], x[:0]).shape == (0, 1000)
    alike(state, scipy.signal.sosfilt(sos, x, zi=np.zeros((3, 2, 2)))[1])
    long = np.hanning(60), np.ones(1)  # which compiles to no code of its own
    alike(
        np.asarray(ic.lfilter(carry(long[0]), carry(long[1]), carry(x))),
        scipy.signal.lfilter(*long, x),
    )


DESIGNS: dict[str, Any] = {
    "butter": partial(scipy.signal.butter, 4, 0.2),
    "cheby1": partial(scipy.signal.cheby1, 3, 1, 0.3, "high"),
    "cheby2": partial(scipy.signal.cheby2, 5, 30, 0.4),
    "ellip": partial(scipy.signal.ellip, 2, 1, 40, (0.2, 0.4), "bandpass"),
    "bessel": partial(scipy.signal.bessel, 3, (0.3, 0.6), "bandstop"),
}


@libraries
@pytest.mark.parametrize("design", DESIGNS)
def test_designs_filter_as_scipys(design: str, carry: Any) -> None:
    def both(name: str, *arrays: Any, zi: Any = None, **options: Any) -> Any:
        state = ({}, {}) if zi is None else ({"zi": carry(np.asarray(zi))}, {"zi": zi})
        found = getattr(ic, name)(*map(carry, arrays), **state[0], **options)
        wanted = getattr(scipy.signal, name)(*arrays, **state[1], **options)
        pairs = [(found, wanted)] if zi is None else zip(found, wanted, strict=True)
        for one, other in pairs:
            alike(one, other)
        return wanted

    x, design_of = np.random.default_rng(0).standard_normal((2, 60, 3)), DESIGNS[design]
    for name, numbers in (("lfilter", design_of()), ("sosfilt", [design_of(output="sos")])):
        both(name, *numbers, x[:, 0])
        state = both(f"{name}_zi", *numbers)[..., None, :, None] * x[:, :1]
        for piece in np.split(x, [20, 21], axis=1):
            _, state = both(name, *numbers, piece, axis=1, zi=state)
        there_and_back = {"lfilter": "filtfilt", "sosfilt": "sosfiltfilt"}[name]
        both(there_and_back, *numbers, x, axis=1)
        for padtype in ("odd", "even", "constant", None):
            both(there_and_back, *numbers, x, axis=-2, padtype=padtype, padlen=7)


@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
def test_filters_have_the_gradients_of_differences(monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    b, x, zi = (rng.standard_normal(shape) for shape in (3, (2, 7), (2, 2)))
    a = np.asarray([1.3, 0.2, -0.1])
    run: Any = lambda b, a, x, zi: ic.lfilter(b, a, x, zi=zi)  # noqa: E731
    tensors = [torch.tensor(v, requires_grad=True) for v in (b, a, x, zi)]
    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)
    whole = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(*tensors), run(*tensors))
    mapped = torch.func.vmap(lambda x, zi: run(*tensors[:2], x, zi)[0])(*tensors[2:])
    torch.testing.assert_close(mapped, run(*tensors)[0])
    filtered = jax.jit(lambda x: run(*map(jax.numpy.asarray, (b, a)), x, None))(x)
    alike(np.asarray(filtered, np.float64), scipy.signal.lfilter(b, a, x))
    arrays = tuple(map(jax.numpy.asarray, (b, a, x, zi)))
    each = jax.vmap(run, (None, 0, 1, None))(b, np.stack([a, 2 * a]), np.stack([x, -x], 1), zi)
    for n, wanted in enumerate((run(b, a, x, zi), run(b, 2 * a, -x, zi))):
        np.testing.assert_allclose(each[0][n], wanted[0], rtol=1e-12)
    check_grads(jax.jit(run), arrays, order=2)
    assert "invconv_filter_" in jax.jit(run).lower(*arrays).as_text()  # the compiled kernel
    monkeypatch.setattr(filters, "reason", lambda size: "absent")  # without it
    assert torch.autograd.gradcheck(run, tensors)


def test_a_recursion_that_grows_is_no_inverse_that_is_lost() -> None:
    x = np.ones((1, 40))
    with agnostic():
        alike(ic.lfilter([1.0], [1.0, -3.0], x), scipy.signal.lfilter([1.0], [1.0, -3.0], x))


@pytest.mark.parametrize("mode", ["mirror", "reflect", "grid-wrap"])
@pytest.mark.parametrize("order", range(2, 6))
def test_splines_are_ndimages(order: int, mode: str) -> None:
    """On a few pixels SciPy's mode "reflect" is not exact: there the dense matrix is the truth."""
    x = np.random.default_rng(0).standard_normal((3, 50, 900))  # more than run at once
    theirs: Any = scipy.ndimage.spline_filter
    wanted = [theirs(image, order, mode=mode) for image in x]
    np.testing.assert_allclose(ic.spline_filter(x, order, mode, (1, 2)), wanted, atol=1e-12)
    found = ic.spline_filter(x.astype("float32"), order, mode, (1, 2))
    np.testing.assert_allclose(found, wanted, atol=3e-5)
    if order == 3:
        boundary = {"mirror": "mirror", "reflect": "symmetric", "grid-wrap": "periodic"}[mode]
        blur = ic.from_psf(np.outer([1, 4, 1], [1, 4, 1]) / 36, boundary=boundary)
        np.testing.assert_allclose(blur.inverse(x[:1]), wanted[:1], atol=1e-12)


def test_a_function_of_a_file_and_one_that_is_learnt() -> None:
    ring = ic.from_psf([0.1, 0.3, 0.1, 0.3, 0.1])  # whose outer half looks whole: no warning
    assert ring.forward(np.ones((1, 9))) == pytest.approx(0.9 * np.ones((1, 9)))
    of_file = ic.from_psf(np.ones((3, 3), ">f4"), like=torch.zeros(1))
    assert of_file.kernel.dtype == torch.float32
    grown = torch.tensor([0.2, 1.0, 0.2], requires_grad=True)
    ic.from_psf(grown, boundary="periodic").forward(torch.ones(1, 4)).sum().backward()
    torch.testing.assert_close(grown.grad, torch.full((3,), 4.0))


@pytest.mark.parametrize("border", ["symmetric", "odd"])
def test_a_long_axis_needs_no_matrix(border: str) -> None:
    """One of all pairs of 200,000 points would take 320 GB."""
    conv = ic.SymmetricConv.init(2, 3, 1, boundary=border, rng=np.random.default_rng(2))
    y = np.random.default_rng(3).standard_normal((1, 2, 200_000))
    wanted = conv.inverse(y)
    for asarray in (torch.as_tensor, jax.numpy.asarray):
        op = conv.asarrays(asarray(y))
        np.testing.assert_allclose(op.inverse(asarray(y)), wanted, atol=1e-12)


X, QUARTER, MIXED = np.zeros(8), np.ones((1, 1, 2, 2)), ("symmetric", "zero")
BOX = ic.SymmetricConv(np.ones((1, 1, 2)), boundary="mirror")
EVEN, SKEW = [0.2, 1.0, 0.2], [1e-8, 1e-7, 3e-8]
WRONG = {
    r"a: expected a\[0\] other than zero": "ic.lfilter([1.0], [0.0, 1.0], X)",
    "x: expected a real floating dtype": "ic.lfilter([1.0], [1.0], X.astype(complex))",
    "b: expected real numbers, got complex128": "ic.lfilter([1j], [1.0], X)",
    "b: expected an array without a mask": "ic.lfilter(np.ma.ones(2), [1.0], X)",
    "psf: expected an array without a mask": "ic.from_psf(np.ma.ones(3))",
    "b: expected at least one coefficient": "ic.lfilter([], [1.0], X)",
    "axis: expected one of the 1 axes of x, got 1": "ic.lfilter([1.0], [1.0], X, 1)",
    r"zi: expected 1 numbers along .* got \(2,\)": "ic.lfilter([1.0], [1.0, 0.5], X, zi=X[:2])",
    r"b, a: expected axes .* that broadcast to \(\)": "ic.lfilter(np.ones((2, 1)), [1.0], X)",
    r"sos: expected the shape \(..., sections, 6\)": "ic.sosfilt([[1.0, 2.0]], X)",
    "boundary: expected one of 'periodic', .* axis, got None": "ic.from_psf([1.0], boundary=None)",
    r"zi: expected 1 states, .* got \(8,\)": "ic.sosfilt([[1.0, 0, 0, 1, 0, 0]], X, zi=X)",
    r"psf: expected odd sizes, .* got \(2, 3\)": "ic.from_psf(np.ones((2, 3)))",
    "psf: expected its centre in the middle, at 1": "ic.from_psf([1.0, 0, 0])",
    "psf: expected finite numbers": "ic.from_psf([1.0, np.nan, 1])",
    "psf: expected a sum other than zero": "ic.from_psf([1.0, -2, 1])",
    'differs from its flip .* boundary="periodic"': "ic.from_psf([0.2, 1, 0.3])",
    "differs from its flip by 2.0e-01 of its": "ic.from_psf([EVEN, SKEW], boundary=['odd'])",
    "'reflect' of scipy.ndimage is 'symmetric', that of": "ic.from_psf([1.0], boundary='reflect')",
    "boundary: expected borders without 'mirror' for least": "BOX.least_squares(X[None])",
    "boundary: expected at most three taps .* 1": "ic.from_psf(np.ones((3, 5)), boundary=MIXED)",
    r"boundary: expected one of .*, got \['odd'\]": "ic.from_psf([1.0], boundary=(['odd'],))",
    "boundary: expected one of .* or 2 of them": "ic.SymmetricConv(QUARTER, boundary=('odd',))",
    "kernel_size: expected odd sizes": "ic.SymmetricConv.init(1, (3, 2), boundary=MIXED)",
    "psf: expected a sum other than zero, got one": "ic.from_psf([0.0], boundary='odd')",
    "order: expected an integer from 2 to 5, got 6": "ic.spline_filter(X, 6)",
    "mode: expected 'mirror' or .*, got 'wrap'": "ic.spline_filter(X, mode='wrap')",
    "axes: expected some of the 1 axes of x, once each": "ic.spline_filter(X, axes=(0, -1))",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_arguments(words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        eval(WRONG[words])
