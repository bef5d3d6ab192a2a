"""Regularised inverses: beside the dense matrix, singular ones too; gradients by differences."""

import copy
import pickle
import re
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import torch
from scipy.ndimage import laplace
from skimage.restoration import wiener

import invconv as ic
from invconv.arrays.namespaces import namespace
from invconv_conformance.cases.table import edited, perturbed, with_bias
from invconv_conformance.truth.oracle import affine
from tests.selected import libraries, seeds


def operator(cls: Any, channels: int, grid: tuple[int, ...], *, singular: bool) -> Any:
    rng = np.random.default_rng(channels)
    conv = cls.init(channels, 3, len(grid), rng=rng)
    kernel = rng.standard_normal(conv.kernel.shape)
    if singular:
        taps = tuple(range(2, kernel.ndim))
        lost = kernel - kernel.mean(taps, keepdims=True)
        kernel = lost if cls is ic.PeriodicConv else np.ones_like(kernel)
    return conv.replace(kernel=kernel, bias=rng.standard_normal(channels))


# by class, the array of a 1x1 whose first entries lose a channel, and the value that does so
LOST: dict[Any, tuple[str, float]] = {
    ic.Conv1x1: ("weight", 0.0),
    ic.PLUConv1x1: ("log_scale", -np.inf),
    ic.QRConv1x1: ("scale", 0.0),
    ic.HouseholderConv1x1: ("log_scale", -np.inf),
    ic.CirculantConv1x1: ("left", 0.0),
    ic.ActNorm: ("log_scale", -np.inf),
    ic.OrthogonalConv1x1: ("bias", 0.0),  # none is singular
}


def pointwise(cls: Any, channels: int, *, singular: bool) -> Any:
    rng = np.random.default_rng(channels)
    conv = with_bias(perturbed(cls.init(channels, ndim=2, rng=rng), rng, 0.3), rng)
    name, value = LOST[cls]
    return edited(conv, name, 0, value) if singular else conv


SHAPES = (3, (3, 4)), (1, (7,)), (1, (4, 5))
POINTWISE = [(cls, 3, (1, 2)) for cls in LOST]
SPECTRAL = [(cls, *shape) for cls in (ic.PeriodicConv, ic.SymmetricConv) for shape in SHAPES]


@libraries
@pytest.mark.parametrize(("cls", "channels", "grid"), [*SPECTRAL, *POINTWISE])
def test_of_singular_ones_it_is_the_dense_matrixs(
    carry: Any, cls: Any, channels: int, grid: tuple[int, ...]
) -> None:
    """Of regular ones that is the law "function.value"."""
    make = pointwise if cls in LOST else partial(operator, grid=grid)
    conv = make(cls, channels, singular=True)
    matrix, bias = affine(conv, grid)
    y = np.random.default_rng(0).standard_normal((2, channels, *grid))
    u, s, vh = np.linalg.svd(matrix)
    s = np.where(s > 1e-12 * s.max(), s, 0)
    for dtype, damp in (("float64", 0.0), ("float64", 1e-3), ("float64", 1.0), ("float32", 1.0)):
        given = carry(y.astype(dtype))
        x = np.asarray(conv.asarrays(given).least_squares(given, damp))
        assert x.dtype == dtype
        gains = np.divide(s, s**2 + damp**2, out=np.zeros_like(s), where=s > 0)
        wanted = (vh.T * gains) @ u.T @ (y.reshape(2, -1) - np.ravel(bias)).T
        error = np.abs(x.reshape(2, -1).T - wanted).max()
        assert error <= (1e-8 if dtype == "float64" else 1e-4) * np.abs(wanted).max()


def uncoupled(taps: Any) -> Any:
    """Return a periodic kernel that couples channels 0 and 2 alone, the others far smaller."""
    channels = np.asarray([[1.0, 0, 0.5, 0], [0, 1e-8, 0, 0], [-0.5, 0, 1, 0], [0, 0, 0, 3e-13]])
    return channels[:, :, None] * taps


@libraries
@pytest.mark.parametrize("damp", [0.0, 1e-8, 1.0])
def test_channels_that_nothing_couples_have_scales_of_their_own(carry: Any, damp: float) -> None:
    conv: Any = ic.PeriodicConv(uncoupled(np.asarray([0.2, 1.0, 0.3])))
    y = np.random.default_rng(0).standard_normal((1, 4, 9))
    alone = [[0, 2], [1], [3]]
    for kernel in (conv.kernel, conv.kernel - conv.kernel.mean(2, keepdims=True)):  # a singular one
        wanted = np.empty_like(y)
        for part in alone:
            single = ic.PeriodicConv(kernel[np.ix_(part, part)])
            wanted[:, part] = single.least_squares(y[:, part], damp)
        small = carry(y.astype("float32"))
        found = np.asarray(conv.replace(kernel=kernel).asarrays(small).least_squares(small, damp))
        for part in alone:
            size = np.abs(wanted[:, part]).max()
            np.testing.assert_allclose(found[:, part], wanted[:, part], rtol=0, atol=1e-4 * size)


APART = np.zeros((2, 2, 3))
APART[0, 0], APART[1, 1] = (1, -2, 1), (0.05, 0.4, 0.05)  # of a constant image the first is zero


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize(
    ("cls", "array", "damp"),
    [
        (ic.PeriodicConv, APART + 0.1, 0.0),
        *((ic.Conv1x1, np.diag([3, 0.1]), damp) for damp in (0.0, 0.5)),
        *((ic.Conv1x1, np.diag([1.0, singular]), 0.5) for singular in (0.0, 1e-20)),
        *((ic.Conv1x1, np.diag(some), 0.0) for some in ([2.0, 0.0], [0.0, 0.3])),
        (ic.Conv1x1, np.ones((2, 2)), 0.5),
        *((ic.PeriodicConv, some, 0.3) for some in (APART, APART[:1, :1])),
        *((ic.SymmetricConv, some, 0.3) for some in (APART[..., 1:], APART[:1, :1, 1:])),
    ],
)
def test_gradients_between_channels_and_of_what_is_singular(
    cls: Any, array: Any, damp: float, library: str
) -> None:
    """No value shows that K is zero there, and only its derivative that it might not be.

    Of an operator of any size it is that over the square of the size.
    """
    rng, grid = np.random.default_rng(0), (4,)
    y, weights = rng.standard_normal((2, 1, len(array), *grid))

    def dense(array: Any) -> Any:
        matrix = affine(cls(array), grid)[0].astype(float)
        both = np.vstack([matrix, damp * np.eye(len(matrix))])
        found = np.linalg.pinv(both, rcond=1e-4)[:, : len(matrix)]  # of one rank at all steps
        return weights.ravel() @ found @ y.ravel()

    def own(array: Any, size: float) -> Any:
        like = namespace(array).asarray
        return (like(weights) * cls(array).least_squares(like(y), size * damp)).sum()

    steps = 1e-5 * np.eye(array.size).reshape(-1, *array.shape)
    slopes = [(dense(array + step) - dense(array - step)) / 2e-5 for step in steps]
    for size in (1.0, 2.0**-60):
        if library == "torch":
            given = torch.tensor(size * array, requires_grad=True)
            (found,) = torch.autograd.grad(own(given, size), given)
        else:
            found = jax.grad(own)(jax.numpy.asarray(size * array), size)
        sized = np.asarray(found).ravel() * size**2
        np.testing.assert_allclose(sized, slopes, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::invconv.IllConditionedWarning")
def test_a_singular_value_counts_from_sixteen_roundings_on() -> None:
    """Of two channels: 8 a channel."""
    for units, kept in ((13, False), (19, True)):
        matrix = np.full((2, 2), 0.5) + units * 2.0**-53 * np.asarray([[1, -1], [-1, 1]])
        x = ic.Conv1x1(matrix).least_squares(np.asarray([[[1.0], [-1.0]]]))
        assert (np.abs(x).max() > 1e13) == kept


def test_a_damp_keeps_the_digits_that_a_nearly_singular_matrix_loses() -> None:
    weight, y = np.ones((2, 2)), np.asarray([1.0, 2.0])
    for off in 10.0 ** -np.arange(3, 15):
        weight[0, 0] = 1 + off
        found = ic.Conv1x1(weight).least_squares(y[None, :, None], 0.5)
        wanted = np.linalg.solve(weight.T @ weight + 0.25 * np.eye(2), weight.T @ y)
        np.testing.assert_allclose(found[0, :, 0], wanted, rtol=1e-13)


@libraries
@pytest.mark.parametrize("damp", [1e3, 1e15, 1e100])
def test_a_damp_beyond_the_matrix_keeps_all_digits(carry: Any, damp: float) -> None:
    """There K^+ is K^H / damp^2, but for terms of K^H K / damp^2."""
    conv = operator(ic.PeriodicConv, 3, (6,), singular=False).replace(bias=np.zeros(3))
    y = np.random.default_rng(0).standard_normal((1, 3, 6))
    once = conv.transpose().forward(y)
    wanted = once / damp - conv.transpose().forward(conv.forward(once)) / damp / damp**2
    found = conv.asarrays(carry(y)).least_squares(carry(y), damp)
    error = np.abs(np.asarray(found) * damp - wanted).max()
    assert error < (1e-13 + (6 / damp) ** 4) * np.abs(wanted).max()


@libraries
@pytest.mark.parametrize("seed", seeds(8, 20))
def test_a_penalty_is_the_dense_stacks(carry: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels, grid = (1, 1, 3)[seed % 3], ((7,), (4, 5))[seed % 2]
    cls = (ic.PeriodicConv, ic.SymmetricConv)[seed // 2 % 2]
    conv = operator(cls, channels, grid, singular=seed % 5 == 0)
    kernels = [rng.standard_normal(conv.kernel.shape) for _ in range(1 + seed % 2)]
    penalties = [conv.replace(kernel=kernel) for kernel in kernels]
    if seed % 7 == 0:  # which leaves constant images free
        penalties = [operator(ic.PeriodicConv, channels, grid, singular=True)]
        conv = operator(ic.PeriodicConv, channels, grid, singular=False)
    damp = 10.0 ** rng.uniform(-2, 3)
    matrix, bias = affine(conv, grid)
    stack = np.concatenate([matrix, *(damp * affine(one, grid)[0] for one in penalties)])
    y = rng.standard_normal((1, channels, *grid))
    aims = np.concatenate([np.ravel(y) - np.ravel(bias), np.zeros(len(stack) - len(matrix))])
    wanted = np.linalg.lstsq(stack.astype(float), aims.astype(float))[0].reshape(y.shape)
    conv, *penalties = (one.asarrays(carry(y)) for one in (conv, *penalties))
    found = np.asarray(conv.least_squares(carry(y), damp, iter(penalties)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


def test_a_laplacian_is_scikit_images_wiener() -> None:
    rng, laplacian = np.random.default_rng(0), laplace(np.pad([[1.0]], 1), mode="constant")
    psf, y = rng.random((5, 5)), rng.standard_normal((1, 24, 25))
    blur, penalty = ic.from_psf(psf, boundary="periodic"), ic.PeriodicConv(laplacian[None, None])
    found = blur.least_squares(y, 0.3**0.5, penalty)
    np.testing.assert_allclose(found[0], wiener(y[0], psf, 0.3, clip=False), atol=1e-12)
    damp = ic.damp_for_noise(blur, y, 0.5, penalty)
    left = blur.forward(blur.least_squares(y, damp, penalty)) - y
    np.testing.assert_allclose((left**2).mean(), 0.25, rtol=1e-3)


def test_a_prepared_operator_has_it() -> None:
    conv, rng = pointwise(ic.QRConv1x1, 3, singular=False), np.random.default_rng(0)
    y, damp = rng.standard_normal((2, 3, 4, 5)), np.asarray(0.1)
    for more in ((), (conv,)):
        known = conv.least_squares(y, damp, *more)
        found = conv.prepare((4, 5)).least_squares(y, damp, *more)
        np.testing.assert_array_equal(found, known)
    found = conv.least_squares(y[None], 0.1, ic.Conv1x1(np.eye(3)))  # of any number of axes
    np.testing.assert_allclose(found[0], conv.least_squares(y, 0.1), rtol=1e-12)
    small, little = y.astype("float32"), damp.astype("float32")
    single = conv.asarrays(small)
    double, prepared = single.asarrays(y), single.prepare((4, 5), precision="float64")
    for penalty, same in ((None, None), (single, double), ([single] * 2, [double] * 2)):
        exact = double.least_squares(small.astype(float), float(little), same)
        wide = prepared.least_squares(small, little, penalty)
        np.testing.assert_array_equal(wide, exact.astype("float32"))
    for wrong, words in (({"damp": damp}, "damp: expected dtype"), ({"penalty": 3}, "penalty: ")):
        with pytest.raises(TypeError, match=words):
            prepared.least_squares(small, **wrong)


def test_a_wide_prepared_operator_is_judged_once_or_not_at_all() -> None:
    kernel = [-1, *[1 / 16] * 16, 5e-15]  # the mean is almost lost
    conv = ic.PeriodicConv(np.asarray([[kernel]], "float32"))
    y = np.random.default_rng(0).random((1, 1, 64), "float32")
    unlooked = conv.prepare((64,), check=False, precision="float64")
    for one in (unlooked, copy.deepcopy(unlooked), pickle.loads(pickle.dumps(unlooked))):
        one.least_squares(y)
    with pytest.warns(ic.IllConditionedWarning):
        prepared = conv.prepare((64,), precision="float64")
    with pytest.warns(ic.IllConditionedWarning, match="by least squares") as told:
        prepared.least_squares(y)
    with pytest.warns(ic.IllConditionedWarning, match=re.escape(str(told[0].message))):
        prepared.least_squares(y)  # the measured error is remembered


@pytest.mark.parametrize(
    "conv", [ic.Conv1x1(np.eye(9) + np.eye(9, k=1) / 2), ic.ActNorm(np.asarray([0, -90.0, 400]))]
)
def test_what_couples_and_scales_channels_keeps_all_digits(conv: Any) -> None:
    """Channels may be coupled through others; a scale is known to all its digits."""
    y = 1 + np.arange(2.0 * conv.channels).reshape(1, -1, 2)
    np.testing.assert_allclose(conv.least_squares(y), conv.inverse(y), rtol=1e-13)


@libraries
@pytest.mark.parametrize("cls", [ic.PeriodicConv, ic.SymmetricConv])
def test_a_damp_is_found_for_images_of_any_size(cls: Any, carry: Any) -> None:
    """The law "function.value" has the damps; float32 has not the squares of these images."""
    conv = operator(cls, 1, (9, 8), singular=False).replace(bias=np.zeros(1))
    y = np.random.default_rng(0).standard_normal((2, 1, 9, 8))
    tiny = carry((1e-23 * y).astype("float32"))
    found = ic.damp_for_noise(conv.asarrays(tiny), tiny, 0.5e-23)
    assert found == pytest.approx(ic.damp_for_noise(conv, y, 0.5), rel=1e-2)


@pytest.mark.parametrize("scale", [2.0**-480, 2.0**480])
def test_a_damp_is_found_for_operators_of_any_size(scale: float) -> None:
    conv = ic.from_psf([0.2, 0.6, 0.2])
    y = np.random.default_rng(0).standard_normal((1, 99)).cumsum(-1)
    found = ic.damp_for_noise(conv.replace(kernel=conv.kernel * scale), y * scale, 0.5 * scale)
    assert found / scale == pytest.approx(ic.damp_for_noise(conv, y, 0.5), rel=1e-3)


def test_images_of_any_size_and_none() -> None:
    conv = operator(ic.PeriodicConv, 2, (5,), singular=False).replace(bias=np.zeros(2))
    y = np.random.default_rng(0).standard_normal((2, 5))
    large = conv.least_squares(2.0**1020 * y, 0.5)
    np.testing.assert_array_equal(large, 2.0**1020 * conv.least_squares(y, 0.5))
    tiny, scale = conv.replace(kernel=2.0**-300 * conv.kernel), 2.0**-300
    for damp in (0.0, 0.5):
        found = tiny.least_squares(scale * y, scale * damp)
        np.testing.assert_array_equal(found, conv.least_squares(y, damp))
    assert conv.least_squares(np.zeros((0, 2, 5))).shape == (0, 2, 5)


def test_diagnose_tells_of_it_where_digits_are_lost() -> None:
    near = np.asarray([[1.0, 1.0], [1.0, 1.0 + 1e-7]])
    for dtype, told in (("float32", True), ("float64", False)):
        advice = ic.diagnose(ic.Conv1x1(near), (25,), dtype).advice
        assert any("least_squares(y, damp)" in text for text in advice) is told


@pytest.mark.filterwarnings("ignore:Dynamo detected", "ignore:<class 'torch.autograd.function.F")
def test_torch_compiles_it() -> None:
    y = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    solve = partial(ic.SymmetricConv.init(2, like=y).least_squares, damp=0.1)
    torch.testing.assert_close(torch.compile(solve, backend="aot_eager")(y), solve(y))


def test_prepared_solutions_are_those_of_each_damp() -> None:
    """The matrices of the last damp are kept, unless a gradient goes through them."""
    rng = np.random.default_rng(0)
    matrix, y = rng.standard_normal((4, 4)), rng.standard_normal((2, 4, 5))
    weight = torch.tensor(matrix, requires_grad=True)
    theirs = ic.Conv1x1(weight).prepare((5,))
    ours = ic.Conv1x1(matrix).prepare((5,))
    for damp in (0.5, 0.5, 2.0, 0.5):
        inverse = np.linalg.solve(matrix.T @ matrix + damp**2 * np.eye(4), matrix.T)
        np.testing.assert_allclose(ours.least_squares(y, damp), inverse @ y)
        x = theirs.least_squares(torch.tensor(y), damp)
        np.testing.assert_allclose(x.detach().numpy(), inverse @ y)
        assert torch.autograd.grad(x.sum(), weight)[0].any()
    ours.conv.weight[...] = 0
    np.testing.assert_allclose(ours.least_squares(y, damp), inverse @ y)
