"""Beyond the laws: factors, exponentials, symmetric ones, squeezes."""

import gc
import itertools
import math
import re
import tracemalloc
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.ndimage
import scipy.signal
import torch

import invconv as ic
from invconv.families.convolutions import StencilFamily
from invconv.kernels import exponential, maps
from invconv_conformance.truth import oracle
from tests.selected import slow

RNG = np.random.default_rng(0)


# factors of a condition of some 1e5, of which W itself would lose half the digits
ILL_CONDITIONED: dict[Any, dict[str, Any]] = {
    ic.PLUConv1x1: {"log_scale": np.asarray([0, -2.0, 1, -9, 2])},
    ic.QRConv1x1: {"scale": np.asarray([1e-2, 3.0, -1e-3, 1.0, 20.0])},
}


@pytest.mark.parametrize("cls", ILL_CONDITIONED)
@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_an_inverse_keep_the_digits_of_float32(cls: Any, seed: int) -> None:
    """Against float64, which the laws hold to the dense matrix."""
    rng, triangle = np.random.default_rng(seed), "lower" if cls is ic.PLUConv1x1 else "upper"
    moved = {triangle: (2 if triangle == "lower" else 1) * rng.standard_normal((5, 5))}
    conv = cls.init(5, rng=rng).replace(**ILL_CONDITIONED[cls], **moved)
    conv = conv.asarrays(np.empty(0, np.float32))
    y, x_bar = rng.standard_normal((2, 3, 5, 2, 3)).astype(np.float32)
    exact = conv.asarrays(np.empty(0))
    assert 1e4 < float(np.linalg.cond(exact.matrix())) < 1e9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth, truth_bar = exact.inverse_vjp(y.astype(float), x_bar.astype(float))
        found, y_bar = conv.inverse_vjp(y, x_bar)
    for name, right in (truth | {"y": truth_bar}).items():
        error = np.abs((y_bar if name == "y" else found[name]) - right).max() / np.abs(right).max()
        assert error < 3e-5, (name, error)


def test_a_family_is_remembered_until_there_are_too_many() -> None:
    for n in range(1, 600):
        family = StencilFamily.of(((n,),), False)
        assert StencilFamily.of(((n,),), False) is family
        assert len(StencilFamily.made) <= 2 * 513  # by settings and by text, with a transpose
    with pytest.raises(TypeError, match=r"StencilFamily: expected settings .* hash, .* got \(\[\["):
        StencilFamily.of([[1]], False)


def almost_singular(pivot: float) -> ic.PLUConv1x1:
    """Return W = [[1, 1], [1, 1 + pivot]] by its factors; W rounds to a singular matrix."""
    one = np.asarray([[0.0, 0], [1, 0]])
    return ic.PLUConv1x1(np.arange(2), one, one.T, np.ones(2), np.asarray([0.0, math.log(pivot)]))


@pytest.mark.filterwarnings("ignore::invconv.IllConditionedWarning")
def test_a_matrix_that_rounds_to_a_singular_one_has_a_gradient() -> None:
    conv, one = almost_singular(1e-20), np.ones((1, 2, 1))
    for pull in (conv.inverse_vjp, ic.Inverse(conv).forward_vjp):
        np.testing.assert_allclose(pull(one, one)[1][0, :, 0], [1, 0], atol=1e-12)  # W^-T (1, 1)


@pytest.mark.parametrize("grid", [(8, 8), (40, 40)])
def test_a_condition_by_norms_sees_the_factors(grid: tuple[int, int]) -> None:
    """Exact on the small grid, an estimate by the transpose on the large one."""
    chain = ic.Chain([almost_singular(1e-17), ic.ActNorm.init(2)])
    assert chain.condition(grid) == pytest.approx(4e17)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_a_skew_kernel_loses_nothing_and_needs_no_bound(padding: str) -> None:
    """One that loses everything is told what to do."""
    lost = ic.diagnose(ic.ExponentialConv(np.full((1, 1, 3), 10.0)), (12,))
    assert lost.digits < 2
    assert re.search(r"make the symmetric part of the kernel smaller.*\|S\| <= 30;", lost.advice[0])
    kernel = RNG.standard_normal((2, 2, 3))
    kernel = 10 * (kernel - kernel.transpose(1, 0, 2)[:, :, ::-1])
    conv = ic.ExponentialConv(kernel, padding=padding)
    assert ic.diagnose(conv, (9,)).digits > 13
    bounded = ic.bounded(conv, 1.5).kernel
    assert np.abs(bounded - kernel).max() < 1e-12 * np.abs(kernel).max()


@pytest.mark.parametrize("norm", [1e-9, 1e-5, 1e-3, 0.5, 1.0, 4.0, 4.1, 30.0])
def test_a_series_has_the_least_steps_and_terms(norm: float) -> None:
    """Of a shift around a circle, whose powers are shifts, beside a mean that is taken out."""
    kernel = np.eye(2)[:, :, None] * [0.0, -70.0, norm]
    conv = ic.ExponentialConv(kernel, padding="circular")
    found = conv.forward(np.eye(5)[:, None] * np.ones((2, 1)))
    sums = (math.fsum(norm**k / math.factorial(k) for k in range(i, 150, 5)) for i in range(5))
    truth = math.exp(-70) * scipy.linalg.circulant(list(sums))[:, None]
    np.testing.assert_allclose(found, truth + 0 * found, 1e-14, 1e-15 * math.exp(-70))
    steps = math.ceil(norm / 4)
    kernel[..., 2], kernel[0, 0, 0] = np.asarray([[norm / 2, -norm], [0, 0]]), norm / 2
    for dtype, axes in itertools.product(("float32", "float64"), ((0, 1, 2), (1, 0, 2))):
        turned = ic.ExponentialConv(kernel.transpose(axes).astype(dtype))
        plan = turned.prepare((5,), check=False).plan
        phi, log_eps = norm / steps, math.log(np.finfo(dtype).eps)
        lost = (k * math.log(phi) + phi - math.lgamma(k + 1) for k in itertools.count(2))
        terms = next(m for m, log in enumerate(lost, 1) if log <= log_eps)
        assert (plan.times, plan.terms) == (steps, terms)


def test_a_gradient_in_jax_goes_back_through_many_steps() -> None:
    kernel, (x, bar) = 3 * RNG.standard_normal((2, 2, 3)), RNG.standard_normal((2, 1, 2, 5))
    conv = ic.ExponentialConv(kernel)
    assert (conv.prepare((5,), check=False).plan.times or 1) > 1

    def total(kernel: Any) -> Any:
        return (conv.replace(kernel=kernel).forward(jax.numpy.asarray(x)) * bar).sum()

    found, wanted = jax.grad(total)(jax.numpy.asarray(kernel)), conv.forward_vjp(x, bar)[0]
    np.testing.assert_allclose(found, wanted["kernel"], rtol=1e-9)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_no_number_comes_of_a_norm_that_is_none(padding: str) -> None:
    """Of one that is too large, either; of the largest comes the right one."""
    x = np.ones((1, 1, 4))

    def shifting(by: float, padding: str = "zeros") -> ic.ExponentialConv:
        return ic.ExponentialConv(np.asarray([[[0.0, 0.0, by]]]), padding=padding)

    for value in (math.nan, math.inf, -4096.1):
        conv = shifting(value, padding)
        with np.errstate(invalid="ignore"):
            gradients, x_bar = conv.forward_vjp(x, x)
            results = conv.forward(x), conv.prepare((4,), check=False).inverse(x), x_bar
        there, y = conv.asarrays(jax.numpy.zeros(0)), jax.numpy.asarray(x)
        in_jax = jax.grad(lambda conv, y=y: conv.forward(y).sum())(there).kernel
        assert np.isnan(np.concatenate([*results, gradients["kernel"], in_jax], axis=2)).all()
        assert np.isfinite(shifting(value).forward(x[:, :, :1])).all()  # no tap
    terms = [4096.0**k / math.factorial(k) for k in range(4)]
    found = shifting(4096.0).forward(x)[0, 0, ::-1]
    np.testing.assert_allclose(found, np.cumsum(terms), rtol=1e-12)
    for mean in (-1e3, 9e307):  # of which the exponential leaves the range
        conv = ic.ExponentialConv(np.asarray([[[0.0, mean, 0.0]]]), padding=padding)
        with np.errstate(over="ignore"):
            assert (conv.prepare((4,), check=False).inverse(x) == np.exp(-mean)).all()


def test_what_was_counted_is_not_counted_again() -> None:
    """A series of no steps is NaN, in all derivatives."""
    family, none = StencilFamily.of(((0,), (1,)), False), exponential.Counts(0, 0)
    (w, v), (x, y) = RNG.standard_normal((2, 2, 2, 2)), RNG.standard_normal((2, 1, 2, 4))
    found = [exponential.ExponentialSolver(family, w, none)(x)]
    found += exponential.exponential_vjp(family, w, x, y, none)
    for tangent, cotangent, arrays, bar in (
        (exponential.exponential_tangent, exponential.exponential_cotangent, (w, x, v), x),
        (exponential.gram_tangent, exponential.gram_cotangent, (w, x, y, v), w),
    ):
        for slot, dot in enumerate(arrays):
            found += [tangent(family, arrays, slot, dot, none)]
            found += [cotangent(family, arrays, slot, bar, none)]
    assert all(np.isnan(array).all() for array in found)


@pytest.mark.parametrize("shapes", [((2, 3), (4, 3, 5)), ((4, 2, 3), (3, 5)), ((2, 3), (3, 2))])
def test_a_product_is_pushed_forward_and_pulled_back(shapes: Any) -> None:
    draw: Any = RNG.standard_normal
    (a, b), (a_dot, b_dot) = (map(draw, shapes) for _ in range(2))
    bar = draw((a @ b).shape)
    for given in ((a_dot, b_dot), (None, b_dot), (a_dot, None)):
        bars: Any = maps.matmul_vjp(a, b, bar, (given[0] is not None, given[1] is not None))
        pairs = [(g, dot) for g, dot in zip(bars, given, strict=True) if dot is not None]
        pulled = sum(np.sum(g * dot) for g, dot in pairs if g.shape == dot.shape)
        pushed: Any = maps.bilinear_jvp(np.matmul, a, b, *given)
        assert pulled == pytest.approx(np.sum(bar * pushed))
    assert maps.bilinear_jvp(np.matmul, a, b, None, None) is None


def test_few_frequencies_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = ic.ExponentialConv.init(3, ndim=1, padding="circular", rng=RNG)
    for entries, kept in ((27, "product with exp(-K_hat)"), (26, None)):
        monkeypatch.setattr(exponential, "ENTRIES", entries)
        plan = conv.prepare((5,)).plan
        assert (plan.method == "spectral", plan.per_frequency) == (kept is not None, kept)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_oracles_blocks_are_orthonormal_and_scipys(factor: int) -> None:
    for basis in ("haar", "dct"):
        dense = oracle.block_transform(basis, factor).astype(float)
        np.testing.assert_allclose(dense @ dense.T, np.eye(factor), atol=1e-15)
    cosines = scipy.fft.dct(np.eye(factor), norm="ortho", axis=0)
    np.testing.assert_allclose(cosines, dense, atol=1e-15)


@pytest.mark.parametrize("carry", [np.asarray, torch.as_tensor, slow(jax.numpy.asarray)])
def test_a_kernel_as_wide_as_the_box_costs_transforms(carry: Any) -> None:
    """Its results are those of SciPy's transforms, and Python has no object for each tap."""
    for n in (32, 252):  # with the first, modules are imported
        rng, middle = np.random.default_rng(0), (n - 1) // 2
        kernel, x = 0.1 * rng.standard_normal((1, 1, n, n)) / n, rng.standard_normal((1, 1, n, n))
        kernel[0, 0, middle, middle] = 1.0
        given, taps = carry(x), carry(kernel)
        tracemalloc.start()
        conv = ic.PeriodicConv(taps)
        gradients, x_bar = conv.forward_vjp(given, given)
        found = conv.forward(given), conv.prepare((n, n), check=False).inverse(given), x_bar
        results = *found, gradients["kernel"], conv.log_det((n, n))
        peak = tracemalloc.get_traced_memory()[1]
        del conv
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    k_hat = scipy.fft.fft2(np.roll(kernel, (-middle, -middle), (2, 3))).conj()
    x_hat = scipy.fft.fft2(x)
    products = k_hat * x_hat, x_hat / k_hat, k_hat.conj() * x_hat, np.abs(x_hat) ** 2
    wanted = [scipy.fft.ifft2(product).real for product in products]
    wanted[3] = np.roll(wanted[3], (middle, middle), (2, 3))
    for one, right in zip(results, (*wanted, np.log(np.abs(k_hat)).sum()), strict=True):
        np.testing.assert_allclose(np.asarray(one), right, rtol=1e-11, atol=1e-11)
    assert peak < 16 * kernel.nbytes
    assert left < 8 * kernel.nbytes  # with the five results


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_gradients_of_every_kind_of_leg_are_those_of_differences(way: str) -> None:
    """Scales, biases, matrices alone and in taps, solves of them and of convolutions."""
    rng = np.random.default_rng(0)
    norm = ic.ActNorm(*0.1 * rng.standard_normal((2, 2)))
    one, plu, qr = (cls.init(2, rng=rng) for cls in (ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1))
    corner, ring = ic.AutoregressiveConv.init(2, rng=rng), ic.PeriodicConv.init(2, rng=rng)
    scale = norm.replace(bias=None)
    undone = [ic.Inverse(ic.Chain([qr, norm])), ic.Inverse(ring.replace(bias=rng.random(2)))]
    first = [scale, one, corner, ring, undone[0], norm, ic.Inverse(norm), plu, undone[1]]
    conv = ic.Chain([*first, one, scale])
    x, bar = rng.standard_normal((2, 2, 2, 4, 5))
    weights = np.asarray([0.3, -2.0])
    known, x_bar = getattr(conv, f"{way}_vjp")(x, bar, weights)

    def loss(name: str, step: Any) -> Any:
        moved = conv if name == "x" else conv.replace(**{name: conv.parameters()[name] + step})
        run = getattr(moved, f"{way}_and_log_det")
        z, log_dets = run(x + step if name == "x" else x)
        return np.sum(bar * z) + np.sum(weights * log_dets)

    for name, gradient in (known | {"x": x_bar}).items():
        step = 1e-5 * rng.standard_normal(gradient.shape)
        slope = (loss(name, step) - loss(name, -step)) / 2
        assert np.sum(gradient * step) == pytest.approx(slope, rel=1e-6), name
    given = torch.tensor(x, requires_grad=True)  # of the images alone
    getattr(conv.asarrays(given), way)(given).backward(torch.tensor(bar))
    np.testing.assert_allclose(given.grad, x_bar, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("cls", "size"), [(ic.AutoregressiveConv, 2), (ic.PeriodicConv, 3)])
def test_a_matrix_goes_into_taps_that_are_fewer_than_the_pixels(cls: Any, size: int) -> None:
    """An inverse's inverse is the forward map, and takes the same way: the bits are the same."""
    conv = ic.Chain([ic.PLUConv1x1.init(2, rng=RNG), cls.init(2, rng=RNG)])
    for batch, legs in ((1, ["Multiply", "Apply"]), (2, ["Merged"])):
        x = RNG.standard_normal((batch, 2, size, size))
        assert [type(leg).__name__ for leg in conv._route(x).legs] == legs
        assert np.array_equal(ic.Inverse(conv).inverse(x), conv.forward(x))


def test_a_log_determinant_alone_has_a_gradient_by_every_array_of_a_part() -> None:
    like = torch.zeros((), dtype=torch.float64)
    conv = ic.QRConv1x1.init(3, rng=np.random.default_rng(0), like=like)
    parameters = {n: a.clone().requires_grad_() for n, a in conv.parameters().items()}
    _, log_det = conv.replace(**parameters).forward_and_log_det(torch.ones(1, 3, 4).double())
    log_det.sum().backward()
    assert torch.equal(parameters["reflectors"].grad, torch.zeros(3, 3).double())
    torch.testing.assert_close(parameters["scale"].grad, 4 / conv.scale)
