"""Promises: `invconv.bounded` keeps an inverse's gain, a lost inverse gives no gradient.

The law "isolation.gradients" has an image that is lost beside a large one.
"""

import math
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
from invconv.trust.round_trip import noise_like, relative_error
from invconv_conformance.cases.table import Case, perturbed
from invconv_conformance.libraries import KNOWN
from tests.selected import cases_named, slow, turned

Operator = ic.InvertibleConv
MAX_GAIN = 10.0
GRID = (4, 4)

NAMES = (
    *("actnorm-2d", "conv1x1-2d", "pluconv1x1-2d", "qrconv1x1-m1", "circulantconv1x1-2d"),
    *("corner-2d++", "raster-2d-1", "corner-one-channel", "emerging-dilated"),
    *("periodic-even-dilated", "periodic-k7", "symmetric-2d", "chain-merged"),
)


def gain(conv: Operator) -> torch.Tensor:
    n = conv.channels * GRID[0] * GRID[1]
    unit = torch.eye(n, dtype=torch.float64).reshape(n, conv.channels, *GRID)
    matrix = conv.forward(unit) - conv.forward(torch.zeros_like(unit))  # without the bias
    return 1 / torch.linalg.svdvals(matrix.reshape(n, n))[-1]


def in_torch(conv: Operator) -> tuple[Operator, dict[str, torch.Tensor]]:
    conv = conv.asarrays(torch.empty(0, dtype=torch.float64))
    weights = {n: p.clone().requires_grad_() for n, p in conv.parameters().items()}
    return conv, weights


def attack(conv: Operator, spread: float) -> list[float]:
    """Let Adam look for parameters with a large gain, from parameters that are spread out."""
    rng = np.random.default_rng(int(1000 * spread))
    conv, weights = in_torch(perturbed(conv, rng, spread))
    search = torch.optim.Adam(weights.values(), lr=0.1 * max(spread, 1.0))
    found = []
    for _ in range(20):
        size = gain(ic.bounded(conv.replace(**weights), MAX_GAIN))
        found.append(size.item())
        search.zero_grad()
        (-torch.log(size)).backward()
        assert all(torch.isfinite(w.grad).all() for w in weights.values() if w.grad is not None)
        search.step()
    return found


@pytest.mark.parametrize("case", cases_named(*NAMES), ids=lambda case: case.name)
@pytest.mark.slow
def test_no_search_breaks_the_promise(case: Case) -> None:
    conv = case.conv()
    gains = [size for spread in (0.0, 1.0, 300.0) for size in attack(conv, spread)]
    assert max(gains) <= MAX_GAIN * (1 + 1e-12)
    assert max(gains) > MAX_GAIN ** (1 / 3)  # the search was one


@pytest.mark.parametrize("limit", [3.0, 27.0])
def test_parts_share_the_gain_as_the_steps_of_a_chain_do(limit: float) -> None:
    """So a pair is bounded as a chain of two is, and L, U of PLU have a third and the rest."""
    rng = np.random.default_rng(0)
    pair = perturbed(ic.EmergingConv.init(2, rng=rng), rng, 2.0)
    both = pair, ic.Chain([pair.first, pair.second])
    arrays = (ic.bounded(conv, limit).parameters().values() for conv in both)
    for one, other in zip(*arrays, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    upper, logs = 5 * rng.standard_normal((2, 3, 3))
    plu = ic.PLUConv1x1(np.arange(3), 0 * upper, upper, np.ones(3), logs[0])
    qr = ic.QRConv1x1(np.zeros((0, 3)), upper, 1 + logs[0])
    found, same = ic.bounded(plu, limit), ic.bounded(qr, limit ** (2 / 3))
    np.testing.assert_allclose(found.matrix(), same.matrix(), rtol=1e-12)
    huge = ic.bounded(plu.replace(sign=np.asarray([-100, 1e-3, 7.0])), limit)  # signs alone count
    assert np.linalg.norm(np.linalg.inv(huge.matrix()), 2) <= limit
    far = ic.bounded(plu.replace(lower=1e9 * np.tri(3, k=-1)), limit).lower
    assert 0.9 < np.linalg.norm(far, 2) / (1 - limit ** (-1 / 3)) < 1 + 1e-9


def test_a_bound_is_its_formula() -> None:
    """A file has the free arrays alone: numbers far from the identity must not change."""
    gain, diagonal, strict, tap = 8.0, np.asarray([0.7, -0.4]), 1.5, -2.0
    kernel = np.stack([np.diag(1 + diagonal), np.zeros((2, 2))], -1)
    kernel[1, 0] = strict, tap

    def shrunk(number: float, limit: float) -> Any:
        return number / (1 + (number / limit) ** 4) ** 0.25

    own, part = gain ** (1 / 3), math.log(gain) / 6  # of the pixel's matrix, and of its scales
    scales = np.exp(part * np.tanh(diagonal / part))
    below = shrunk(strict, 1 - own**-0.5)
    rest = (1 - own / gain) * scales.min() * (1 - below)
    found = ic.bounded(ic.AutoregressiveConv(kernel), gain).kernel
    matrix = scales[:, None] * [[1, 0], [below, 1]]
    np.testing.assert_allclose(found[..., 0], matrix, rtol=1e-12)
    np.testing.assert_allclose(found[..., 1], shrunk(tap, rest) * np.eye(2, k=-1), rtol=1e-12)
    for conv in (cls(kernel[1:, 1:, :1]) for cls in (ic.AutoregressiveConv, ic.PeriodicConv)):
        wanted = math.exp(3 * part * math.tanh(-0.4 / (3 * part)))
        assert ic.bounded(conv, gain).parameters()["kernel"] == pytest.approx(wanted)


def test_the_initialisation_is_hardly_changed() -> None:
    rng = np.random.default_rng(0)
    classes = ((ic.EmergingConv, 12), (ic.QRConv1x1, 12), (ic.PeriodicConv, 2))
    convs: list[Any] = [cls.init(channels, rng=rng) for cls, channels in classes]
    rotation = ic.Conv1x1.init(4, rng=rng).weight
    for conv in (*convs, ic.Conv1x1(rotation + 0.01 * rng.standard_normal((4, 4)))):
        for name, array in ic.bounded(conv, 100.0).parameters().items():
            assert np.abs(array - conv.parameters()[name]).max() < 0.002
    # sum |taps| = 0.9, nearly all there is room for
    corner = ic.AutoregressiveConv.init(48, rng=rng)
    there = ic.bounded(corner, 100.0).kernel
    assert np.linalg.norm(there - corner.kernel) < 0.25 * np.linalg.norm(corner.kernel)


def test_a_bound_that_float64_hardly_holds_leaves_numbers() -> None:
    star = np.zeros((48, 48, 1))  # its 1-norm, which ends the series, is 7 times its 2-norm
    star[0, 1:] = star[1:, 0] = 1e4
    bounded = ic.bounded(ic.ExponentialConv(star), 1e300)
    assert np.isfinite(bounded.forward(np.full((1, 48, 1), 1e-200))).all()


def test_gradients_exist_where_there_is_nothing() -> None:
    zero = ic.AutoregressiveConv(np.eye(2)[:, :, None, None] * np.eye(1, 4).reshape(2, 2))
    orthogonal = ic.QRConv1x1.init(2, rng=np.random.default_rng(0))
    for conv in (zero, ic.PeriodicConv(zero.kernel), orthogonal):
        there, weights = in_torch(conv)
        there = ic.bounded(there.replace(**weights), 5.0)
        there.inverse(torch.ones(1, 2, *GRID, dtype=torch.float64)).sum().backward()
        assert all(torch.isfinite(w.grad).all() for w in weights.values())


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_an_exponential_keeps_its_promise_at_any_size(padding: str) -> None:
    kernel = torch.as_tensor(1e30 * np.random.default_rng(0).standard_normal((3, 3, 3, 1)))
    kernel = kernel.repeat(4, 4, 1, 1).requires_grad_()  # 12 channels
    conv = ic.bounded(ic.ExponentialConv(kernel, padding=padding), MAX_GAIN)
    assert gain(conv) <= MAX_GAIN * (1 + 1e-9)
    conv.forward(torch.ones(1, 12, *GRID, dtype=torch.float64)).square().sum().backward()
    assert kernel.grad.isfinite().all()


def before_and_after_training(how: str) -> tuple[list[Any], list[Any], Any]:
    step = ic.AutoregressiveConv(np.asarray([[[1.0, 0.0]]]))
    images = np.random.default_rng(0).standard_normal((2, 1, 12))
    if how == "beside a large pixel":  # by all steps together
        images[..., -1] = 1e6
        return [step] * 4, [step.replace(kernel=np.asarray([[[1.0, -2.5]]]))] * 4, images
    images = np.repeat(images, 2, axis=1)
    if how == "beside a large channel":  # that was large
        images = images[..., :8] * [[1e6], [1.0]]
        two = ic.AutoregressiveConv(np.eye(2)[:, :, None] * [1.0, 0.0])
        kernel = np.stack([np.eye(2), np.diag([0.0, -20.0])], axis=-1)
        scale = ic.ActNorm(np.zeros(2), np.zeros(2))
        fitted = scale.replace(log_scale=np.asarray([-math.log(1e6), 0.0]))
        return [scale, two], [fitted, two.replace(kernel=kernel)], images
    # by a gain, which makes the output large
    return [ic.Conv1x1(np.eye(2))], [turned(3e6, 1.0, dtype=float)], images


def recomputed(library: str, judged: list[Any], trained: list[Any], x: Any) -> dict[str, Any]:
    """Return the gradients of the sum of what a chain gives that recomputes its activations."""
    known: Any = KNOWN[library.partition("-")[0]]
    array = partial(known.asarray, dtype="float32", device="cpu")
    run = known.recomputing(ic.Chain(judged).asarrays(array(x)), array(x))
    weights = {n: array(a) for n, a in ic.Chain(trained).parameters().items()}
    bars = array(np.ones_like(x)), array(np.zeros(len(x)))
    if library == "jax":
        return jax.vjp(run, weights, array(x))[1](bars)[0]  # type: ignore[no-any-return]
    return known.pullback(run, weights, array(x), bars)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("library", ["torch", "jax-jit", slow("jax")])
@pytest.mark.parametrize("how", ["beside a large pixel", "beside a large channel", "by a gain"])
def test_an_inverse_that_training_loses_gives_no_gradient(library: str, how: str) -> None:
    if library == "torch":
        with pytest.raises(RuntimeError, match="so the gradient would be wrong"):
            recomputed(library, *before_and_after_training(how))
    else:
        for gradient in recomputed(library, *before_and_after_training(how)).values():
            assert jax.numpy.isnan(gradient).all()


@pytest.mark.parametrize("size", [1.0, 1e200, 1e-200])
def test_a_recomputed_image_is_off_by_its_share_of_the_image(size: float) -> None:
    """Of the image, not of what was recomputed; an image far below its output may be lost."""
    x = np.asarray([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [3.0, np.nan], [1e-33, 0], [1e-20, 0]])
    off = np.asarray([[0.0, 0.5], [0.02, 0.03], [0.0, 0.1], [9.0, 0.0], [1e-16, 0], [1e-20, 0]])
    x, off, z = size * x, size * off, np.full(x.shape, size)
    with np.errstate(all="ignore"):
        error, right = relative_error(x, x + off, z)
    assert error[:2] == pytest.approx([0.5 / 4, 0.03 / 4])  # the largest entry says more here
    assert right.tolist() == [False, True, False, True, True, False]
    one = relative_error(np.full((1, 4), 2.0), np.full((1, 4), 2.5), z[:1, :1])[0]
    assert one == pytest.approx(0.25)
    wide = 4.0 * np.eye(1, 16)  # whose 2-norm says more
    assert relative_error(wide, wide + 0.5, wide)[0] == pytest.approx(0.5)
    half = torch.ones(3, 1, dtype=torch.bfloat16)  # whose rounding alone is 0.4 % an operation
    again = half * torch.tensor([[1.25], [1.75], [1.0]]).bfloat16()
    assert relative_error(half, again, half)[1].tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_noise_has_mean_0_and_variance_1(dtype: Any) -> None:
    noise = noise_like(torch.zeros(2, 30, 1000, dtype=dtype))
    assert (noise.shape, noise.dtype) == ((1, 30, 1000), dtype)
    assert abs(noise.double().mean()) < 0.02
    assert noise.double().var() == pytest.approx(1, rel=0.02)
