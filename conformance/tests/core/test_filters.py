"""Recursive filters, point-spread functions and borders: SciPy's, or their dense matrices."""

import itertools
import math
from typing import Any

import array_api_strict as strict
import jax
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from jax.test_util import check_grads

import invconv as ic
from invconv_conformance.truth.oracle import affine
from tests.selected import libraries, slow

DESIGNS: dict[str, tuple[Any, Any]] = {
    "butterworth": scipy.signal.butter(4, 0.2),
    "chebyshev": scipy.signal.cheby1(5, 1, 0.3),
    "taps alone": ([0.5, 0.3, 0.2], [2.0]),
    "numbers": ([0.5, 0.3], 1),
    "poles alone": ([0.7], [1.5, -0.4, 0.3, 0.1]),
    "late": ([0.0, 0.0, 1.0, 0.5], [1.0, 0.3]),
}


def alike(found: Any, wanted: Any) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-10, atol=1e-12)


@libraries
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("axis_and_shape", [(-1, 40), (1, 3, 30), (0, 9, 2, 3), (1, 2, 3)])
def test_lfilter_is_scipys(design: str, axis_and_shape: tuple[int, ...], carry: Any) -> None:
    axis, *shape = axis_and_shape
    (b, a), rng = DESIGNS[design], np.random.default_rng(0)
    x, states = rng.standard_normal(shape), shape.copy()
    states[axis] = max(np.size(b), np.size(a)) - 1
    zi = rng.standard_normal(states)
    alike(ic.lfilter(b, a, carry(x), axis), scipy.signal.lfilter(b, a, x, axis))
    pairs = ic.lfilter(b, a, carry(x), axis, carry(zi)), scipy.signal.lfilter(b, a, x, axis, zi=zi)
    for found, wanted in zip(*pairs, strict=True):
        alike(found, wanted)


def test_ten_seconds_of_audio_in_ten_pieces() -> None:
    (b, a), state = scipy.signal.butter(4, 0.1), np.zeros(4)
    x, pieces = np.random.default_rng(0).standard_normal(441_000), []
    for piece in np.split(x, 10):
        y, state = ic.lfilter(b, a, piece, zi=state)
        pieces.append(y)
    whole = ic.lfilter(b, a, x)
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-12)
    np.testing.assert_allclose(whole, scipy.signal.lfilter(b, a, x), atol=1e-12)


@libraries
def test_a_filter_for_each_channel(carry: Any) -> None:
    rng = np.random.default_rng(0)
    b, a = rng.standard_normal((4, 1, 3)), 0.3 * rng.standard_normal((5, 3))
    a[:, 0] = rng.uniform(0.5, 2, 5)
    x, zi = rng.standard_normal((2, 4, 5, 30)), rng.standard_normal((2, 4, 5, 2))
    y, state = ic.lfilter(carry(b), carry(a), carry(x), zi=carry(zi))
    for i, j, k in np.ndindex(2, 4, 5):
        wanted = scipy.signal.lfilter(b[j, 0], a[k], x[i, j, k], zi=zi[i, j, k])
        for found, right in zip((y[i, j, k, ...], state[i, j, k, ...]), wanted, strict=True):
            alike(found, right)


@libraries
def test_sections_are_scipys_and_pieces_are_the_whole(carry: Any) -> None:
    sos, rng = scipy.signal.butter(6, 0.1, output="sos"), np.random.default_rng(0)
    x, state = rng.standard_normal((2, 1000)), np.zeros((3, 2, 2))
    whole = scipy.signal.sosfilt(sos, x)
    alike(ic.sosfilt(sos, carry(x)), whole)
    pieces = []
    for part in np.split(x, [0, 300, 301], axis=1):  # the first is empty
        y, state = ic.sosfilt(sos, carry(part), zi=carry(np.asarray(state)))
        pieces.append(np.asarray(y))
    alike(np.concatenate(pieces, axis=1), whole)
    first = np.ones((2, 1))
    wanted = scipy.signal.lfilter([1.0], [1.0, -0.5], x, zi=first)
    big, state_there = (a.astype(a.dtype.newbyteorder()) for a in (x, first))  # as FITS has it
    found = ic.lfilter([1.0], [1.0, -0.5], big, zi=state_there)
    for one, right in zip(found, wanted, strict=True):
        alike(one, right)
    kept = ic.lfilter([1.0], [1.0, -0.5], x[:, :0], zi=first)[1]
    kept += 1  # it is not the caller's own
    assert (first == 1).all()
    assert ic.lfilter(np.ones((0, 2)), [1.0, 0.5], x[:0]).shape == (0, 1000)
    alike(state, scipy.signal.sosfilt(sos, x, zi=np.zeros((3, 2, 2)))[1])


@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
def test_filters_have_the_gradients_of_differences() -> None:
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
    check_grads(jax.jit(run), tuple(map(jax.numpy.asarray, (b, a, x, zi))), order=2)


MODES: dict[str, Any] = {"periodic": "wrap", "symmetric": "reflect", "zero": "constant"}
MODES["mirror"] = "mirror"
PADS: dict[str, Any] = {"symmetric": "symmetric", "mirror": "reflect"}


@pytest.mark.parametrize(
    "words", ["periodic", "symmetric", "mirror", "zero", "zero symmetric periodic mirror"]
)
def test_a_blur_is_ndimages_and_is_undone(words: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        ndim = int(rng.integers(1, 4))
        borders = tuple(map(str, rng.choice(words.split(), ndim)))
        sizes = tuple(2 * rng.integers(0, 4 if ndim < 3 else 2, ndim) + 1)
        sizes = tuple(min(n, 3) if w == "zero" else n for n, w in zip(sizes, borders, strict=True))
        psf = 0.5 * rng.standard_normal(sizes) / np.prod(sizes)
        for axis in (axis for axis, word in enumerate(borders) if word != "periodic"):
            psf = (psf + np.flip(psf, axis)) / 2
        psf[tuple(n // 2 for n in sizes)] += 1
        x = rng.standard_normal(tuple(rng.integers(1, 12 if ndim < 3 else 6, ndim)))
        blur = ic.from_psf(psf, boundary=borders if len(set(borders)) > 1 else borders[0])
        y = blur.forward(x[None])
        alike(y[0], convolved(x, psf, borders))
        np.testing.assert_allclose(blur.inverse(y)[0], x, atol=1e-9)


def convolved(x: Any, psf: Any, borders: tuple[str, ...]) -> Any:
    """Return SciPy's convolution; images are continued axis by axis, since it has one mode."""
    pads = [(n // 2, n // 2) for n in psf.shape]
    for axis, (word, pad) in enumerate(zip(borders, pads, strict=True)):
        sides = [(0, 0)] * x.ndim
        sides[axis] = pad
        if len(set(borders)) > 1:
            x = np.pad(x, sides, mode={**MODES, **PADS}[word])
    y = scipy.ndimage.convolve(x, psf, mode=MODES[borders[0]])
    if len(set(borders)) == 1:
        return y
    return y[tuple(slice(a, n - b) for (a, b), n in zip(pads, y.shape, strict=True))]


def test_a_function_for_each_channel_and_other_libraries() -> None:
    rng = np.random.default_rng(0)
    psf, x = rng.random((2, 3, 5)), rng.standard_normal((2, 8, 9))
    y = ic.from_psf(psf, boundary=["periodic", "periodic"]).forward(x)
    for found, image, function in zip(y, x, psf, strict=True):
        alike(found, scipy.ndimage.convolve(image, function, mode="wrap"))
    one = ic.from_psf(strict.asarray(psf[0]), boundary="periodic")  # without an axis of channels
    alike(np.asarray(one.forward(strict.asarray(x[:1]))), np.asarray(y)[:1])
    of_file = ic.from_psf(np.ones((3, 3), ">f4"), like=torch.zeros(1))
    assert of_file.kernel.dtype == torch.float32
    grown = torch.tensor([0.2, 1.0, 0.2], requires_grad=True)
    ic.from_psf(grown, boundary="periodic").forward(torch.ones(1, 4)).sum().backward()
    torch.testing.assert_close(grown.grad, torch.full((3,), 4.0))


AS_ARRAYS = np.asarray, strict.asarray, torch.as_tensor
WORDS = ("periodic", "symmetric", "mirror", "odd", "zero")
GRIDS = {1: ((5,), (1,)), 2: ((4, 3), (2, 5)), 3: ((2, 3, 2),)}  # odd, even, narrower than a kernel
CASES = [
    pytest.param(borders, grid, id=f"{'-'.join(borders)}-on-{'x'.join(map(str, grid))}")
    for ndim, grids in GRIDS.items()
    for borders in itertools.product(WORDS, repeat=ndim)
    for grid in grids
]


def conv_of(borders: tuple[str, ...], rng: np.random.Generator) -> ic.SymmetricConv:
    """Return an operator of two channels, with five taps per axis where it may have so many."""
    size = tuple({"zero": 2, "periodic": 4}.get(border, 3) for border in borders)
    kernel = 0.3 * rng.standard_normal((2, 2, *size)) / math.prod(size)
    place = tuple(1 if border == "periodic" else 0 for border in borders)
    turn = np.asarray([[0.6, 0.8], [-0.8, 0.6]])
    kernel.reshape(2, 2, -1)[:, :, np.ravel_multi_index(place, size)] += turn
    return ic.SymmetricConv(kernel, rng.standard_normal(2), boundary=borders)


# XLA compiles for a second or two a mixture
@pytest.mark.parametrize("as_arrays", [AS_ARRAYS, slow((jax.numpy.asarray,))])
@pytest.mark.parametrize(("borders", "grid"), CASES)
def test_a_mixture_is_its_dense_matrix(borders: Any, grid: Any, as_arrays: Any) -> None:
    conv = conv_of(borders, np.random.default_rng(0))
    matrix, shift = affine(conv, grid)
    x = np.random.default_rng(1).standard_normal((2, 2, *grid))
    rows = x.reshape(2, -1)
    y = (rows @ matrix.T + shift).reshape(x.shape)
    log_det = np.linalg.slogdet(matrix)[1]
    damped = np.concatenate([matrix, 0.3 * np.eye(len(matrix))]).astype(float)
    aims = np.concatenate([rows - shift, 0 * rows], axis=1).astype(float)
    least = np.linalg.lstsq(damped, aims.T)[0].T.reshape(x.shape)
    for given in (asarray(x) for asarray in as_arrays):
        op = conv.asarrays(given)
        pairs = [
            (op.forward(given), y),
            (op.inverse(op.forward(given)), x),
            (op.log_det(grid), log_det),
            (op.transpose().forward(given), (rows @ matrix).reshape(x.shape)),
        ]
        if "mirror" not in borders:
            pairs.append((op.least_squares(given, 0.3), least))
        for found, truth in pairs:
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
        least = [] if "mirror" in borders else [of.least_squares(x, 0.3)]
        return of.forward(x), of.inverse(x), of.log_det(grid), *least

    assert torch.autograd.gradcheck(run, (kernel, x), fast_mode=True)


@pytest.mark.parametrize("border", ["symmetric", "mirror", "odd"])
def test_a_long_axis_needs_no_matrix(border: str) -> None:
    """One of all pairs of 200,000 points would take 320 GB."""
    conv = conv_of((border,), np.random.default_rng(2))
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
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_arguments(words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        eval(WRONG[words])
