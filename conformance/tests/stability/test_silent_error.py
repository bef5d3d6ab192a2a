"""No inverse is wrong in silence: constructions that were, against dense matrices.

``python -m invconv benchmark silent_error`` does the same for thousands of operators.
"""

import math
import re
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax as ij
import invconv_torch as it
from invconv.arrays.namespaces import Shape
from invconv.operators.base import judgement
from invconv.operators.base.judgement import require_invertible
from invconv.stability.guard import InverseGuard
from invconv.trust.condition import EPS, digits_left
from invconv.trust.limits import UNSEEN
from invconv.trust.round_trip import Judgement, RoundTrip
from invconv_benchmarks.studies import beyond, operators, silent_error
from invconv_benchmarks.studies.operators import constructions
from invconv_benchmarks.studies.silent_error import digits, error_of
from tests.selected import slow, turned

ALL = list(constructions())
SILENT = Judgement(0.0)


def warned(conv: ic.InvertibleConv, shape: Shape) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ic.IllConditionedWarning)
        conv.prepare(shape)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(("name", "conv", "shape"), ALL, ids=lambda v: str(v)[:20])
def test_what_was_silent_warns(name: str, conv: Any, shape: Shape, monkeypatch: Any) -> None:
    """The inverse is lost, which the condition does not tell; `diagnose` says what is left."""
    left = digits(error_of(conv, shape, np.random.default_rng(0)), "float32")
    assert left < 2.3
    (message,) = warned(conv, shape)
    said = r"off by .* measured on round trips of random images: ([\d.]+) digits .* ([\d.]+) at "
    ((*numbers, known),) = re.findall(rf"{said}worst \(it has condition number ([^)]+)", message)
    measured, worst = map(float, numbers)
    bound = digits_left(float(known.removeprefix("about ")), EPS["float32"])
    assert worst == pytest.approx(min(measured, bound), abs=0.1)
    draw = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed=1: draw(seed))  # in every run alike
    found = ic.diagnose(conv, shape)
    assert left - 1 < found.digits < left + 0.5
    assert found.digits < 2
    assert found.blame or not found.steps
    with pytest.warns(ic.IllConditionedWarning, match="off by"):
        conv.replace().inverse(np.zeros((1, conv.channels, *shape), np.float32))
    with pytest.raises(ValueError, match="an inverse that can be trusted"):
        require_invertible("it", conv, shape)
    with pytest.warns(ic.IllConditionedWarning, match="the inverse of .* is off by"):
        InverseGuard(conv, shape).step(conv)
    monkeypatch.setattr(judgement, "judge", lambda *a, **k: SILENT)  # without it, nothing warns
    assert not warned(conv.replace(), shape)


GREY = [one for one in operators.grey() if isinstance(one[1], ic.PeriodicConv)]


@pytest.mark.parametrize(("name", "conv", "shape"), GREY, ids=lambda v: str(v)[:20])
def test_roundings_that_all_pixels_share_are_seen(name: str, conv: Any, shape: Shape) -> None:
    """Of evenly grey images, by every judgement of some, whatever they draw."""
    left = digits(error_of(conv, shape, np.random.default_rng(0)), "float32")
    for _ in range(4):
        assert warned(conv.replace(), shape)
        said = judgement.judge(conv, shape, "float32").digits("float32")
        assert said == pytest.approx(left, abs=1)


def drawn(affordable: int, limit: float | None, error: float = 0.0, **how: Any) -> Any:
    """Return images by which 1/3 is judged: of its own numbers, and of others."""
    seen: tuple[list[Any], list[Any]] = [np.zeros((0, 2, 6, 5))], [np.zeros((0, 2, 6, 5))]
    own, other = (lambda x, into=into: into.append(x.copy()) or x / 3 for into in seen)
    large = np.where(np.arange(6) % 2, -1.0, 1.0)[:, None] * np.ones((2, 6, 5))
    signs = np.stack([large, np.ones((2, 6, 5))])
    solve, dtype = lambda y: 3 * (1 + error) * y, np.dtype(float)
    trip = RoundTrip(own, other, solve, (2, 6, 5), dtype, signs, **how)
    found = trip.error(affordable, limit)
    unseen = UNSEEN if affordable < 5 and how.get("steps") else 1
    assert found == pytest.approx(unseen * error, abs=1e-12)
    return tuple(map(np.concatenate, seen))


def test_there_are_as_many_images_as_tell_the_error_from_a_limit() -> None:
    matrices, spectral, steps = {"matrices": True}, {"spectral": True}, {"steps": True}
    for affordable, limit, error, how, count in (
        *((1000, 1e-2, error, {}, 5) for error in (0.0, 0.9e-4)),
        *((1000, 1e-2, error, {}, 24) for error in (1.1e-4, 0.9e-3, 0.011, 0.5)),
        *((1000, 1e-2, error, {}, 72) for error in (1.1e-3, 0.99e-2)),
        *((7, 1e-2, 5e-3, {}, 21), (5, 1e-2, 0.0, {}, 5), (4, 1e-2, 0.0, steps, 4)),
        *((0, 1e-2, 0.1, steps, 2), (0, 1e-2, 0.1, steps | matrices, 3), (4, 1e-2, 0.0, {}, 1)),
        *((1000, None, 0.1, {}, 96), (50, None, 0.0, {}, 50), (4, None, 0.0, steps, 4)),
        *((1, 1e-2, 0.0, steps | spectral, 3), (4, 1e-2, 0.0, steps | spectral, 4)),
        *((2, 1e-2, 0.0, matrices, 2), (5, 1e-2, 0.0, matrices, 10), (0, None, 0.0, matrices, 2)),
        *((9, 1e-2, 0.0, spectral, 2), (10, 1e-2, 0.0, spectral, 5), (0, 1e-2, 0.0, spectral, 1)),
        *((1, 1e-2, 0.0, spectral, 2), (1, None, 0.0, spectral, 2)),
    ):
        assert sum(map(len, drawn(affordable, limit, error, **how))) == count, (affordable, error)


def test_a_long_chain_is_judged_by_every_kind_of_image() -> None:
    """Of a recursion that grows by e^14 in 10^6 pixels, beside two matrices; by every judgement."""
    pixels = 10**6
    grows = ic.AutoregressiveConv(np.asarray([[[1.0, -1 - 14 / pixels]]]), direction=-1)
    steps = [grows, ic.Conv1x1(np.full((1, 1), 1.3), ndim=1), ic.ActNorm(np.full(1, 0.1), None)]
    chain = ic.Chain(steps).asarrays(np.empty(0, np.float32))
    x = np.random.default_rng(0).standard_normal((1, pixels)).astype(np.float32)
    right = chain.prepare((pixels,), check=False)
    assert np.abs(right.inverse(chain.forward(x)) - x).max() > np.abs(x).max()
    for _ in range(8):
        assert warned(chain.replace(), (pixels,))


def test_images_show_what_others_hide() -> None:
    """Numbers near the largest, with signs for which K x is large (here rows by turns) or small."""
    rows = np.where(np.arange(6) % 2, -1.0, 1.0)[:, None]
    (*first, back, bands, level, own_noise, _, _, _), others = drawn(15, None)
    of_noise, noise, small, of_small, _ = others
    for image in (first[0], bands):  # half of it alternates, and half of it is one number
        assert 0 <= np.abs(image).min() < np.abs(image).max() < 1
        assert len({*np.abs(image).flat}) in range(20, 50)
        assert not (image > 0).all()
        assert not (image * rows > 0).all()
    for image in (first[1], level):
        assert np.ptp(np.abs(image), axis=(1, 2)).max() == 0
        assert (image > 0).all() or (image * rows > 0).all()
    for image, signs, most in (
        (first[2], rows, 1),
        (small, 1, 1),
        (back, rows, 3),
        (of_small, 1, 3),
    ):
        assert most / 2 <= (image * signs).min() < 0.75 * most < (image * signs).max() < most
    for image, most in ((own_noise, 1), (noise, 1), (of_noise, 3)):
        assert image.min() < 0 < image.max()
        assert 0.6 < image.std() / most < 1.5
    (_,), (solved,) = drawn(1, 1e-2, matrices=True)
    assert 1.8 < solved.std() < 4.5
    (weak, _), others = drawn(1, 1e-2, spectral=True)
    assert (len(others), *map(len, drawn(4, None, steps=True))) == (0, 4, 0)
    assert len({*np.abs(weak[:, 3:]).flat}) <= 2 < len({*np.abs(weak[:, :3]).flat})


def test_steps_that_are_fine_by_themselves_are_judged_together() -> None:
    """Ten times 1.1 digits: each step is fine, and the chain is lost."""
    steps = [turned(math.exp(1.3), math.exp(-1.3)) for _ in range(6)]
    for step in steps:
        assert not warned(step, (4, 4))
    chain = it.ReversibleChain([*map(it.InvertibleModule, steps), it.Squeeze()])
    with pytest.raises(ValueError, match="layers 0 to 5: expected an inverse"):
        chain(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="chain: expected an inverse"):
        ij.reversible(ic.Chain(steps).asarrays(jax.numpy.empty(0, "float32")), (4, 4))


@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_the_bound_holds_and_the_measured_error_is_that_of_dense_matrices(seed: int) -> None:
    several = [*operators.random_operators(4, seed), *operators.chains(10, seed)]
    found = silent_error.compare_all(several, "")
    assert len(found) > 40
    for one in found:
        precision = str(one.conv._reference()[1].dtype)
        eps = EPS[precision]
        bound = judgement.bound(one.conv) * eps
        assert one.left >= min(-math.log10(bound), -math.log10(eps)) - 1e-9
        assert not one.silent
        assert not one.false_alarm
        assert abs(one.hopeful) <= 1


@pytest.mark.filterwarnings("ignore::invconv.IllConditionedWarning")  # of the step itself
def test_the_bound_of_an_inverted_step_holds_with_its_bias() -> None:
    """Of (x - b) / 1e-4, whose result is large for the sake of b."""
    x = np.random.default_rng(0).uniform(-1, 1, (64, 1, 4)).astype(np.float32)
    pointwise = ic.Conv1x1(np.full((1, 1), 1e-4)), ic.ActNorm(np.full(1, math.log(1e-4)), None)
    for conv in (*pointwise, ic.AutoregressiveConv(np.asarray([[[1e-4, 2e-5]]]))):
        biased = conv.replace(bias=np.full(1, 1e3)).asarrays(like=np.empty(0, np.float32))
        inverted = ic.Inverse(biased)
        error = float(np.abs(inverted.inverse(inverted.forward(x)) - x).max())
        assert 100 * EPS["float32"] < error <= judgement.bound(inverted) * EPS["float32"]


def test_least_squares_without_damp_warn_of_what_is_lost() -> None:
    """Not of what a singular map loses for good, nor where it is not looked at."""
    at = np.square(np.arange(15) - 7.0) / 4.5
    blur = ic.from_psf(np.exp(-np.add.outer(at, at)).astype(np.float32) / 14)
    x = np.random.default_rng(0).random((1, 1, 64, 64)).astype(np.float32)
    with pytest.warns(ic.IllConditionedWarning, match="least squares on a grid of 64 x 64 is off"):
        off = np.abs(blur.least_squares(blur.forward(x)) - x).max()
    assert off > 0.05
    blur.replace().prepare((64, 64), check=False).least_squares(x)
    laplacian = np.asarray([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)[None, None]
    for conv in (ic.PeriodicConv(laplacian), ic.Conv1x1(np.full((1, 1), 2.0, np.float32))):
        conv.least_squares(conv.forward(x))


def test_a_lost_chain_that_is_silent_counts_as_one_that_is_not_named(monkeypatch: Any) -> None:
    ((chain, shape, step),) = operators.blamed(1)
    assert silent_error._blames(chain, shape, step)
    monkeypatch.setattr(judgement, "judge", lambda *a, **k: SILENT)
    assert silent_error._blames(chain.replace(), shape, step) is False


def test_nobody_judges_where_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "judge", lambda *a: pytest.fail("judged"))
    monkeypatch.setattr(judgement, "bound", lambda *a: pytest.fail("judged"))
    conv = ic.EmergingConv.init(2, rng=np.random.default_rng(0))
    conv.prepare((4, 4), check=False).inverse(np.ones((1, 2, 4, 4)))
    there = conv.asarrays(jax.numpy.empty(0, "float32"))
    jax.jit(lambda conv, y: conv.inverse(y))(there, jax.numpy.ones((1, 2, 4, 4), "float32"))


@pytest.mark.parametrize("kind", [*beyond._KINDS, "sharpening"])
def test_turned_signs_are_the_same_problem_bit_for_bit(kind: str) -> None:
    draw: Any = beyond._sharpening if kind == "sharpening" else beyond._KINDS[kind]
    rng = np.random.default_rng(len(kind))
    conv = draw(rng, 2, (6, 4))(0.3)
    if kind == "symmetric":
        conv = ic.SymmetricConv.init(2, 3, 2, boundary="mirror", rng=rng)
    signs = np.asarray([1.0, -1.0])
    plain, other = (beyond.turned(conv, *how) for how in ((signs**2, [0, 0]), (signs, [1, 1])))
    x = rng.standard_normal((1, 2, 6, 4))
    turn = signs[:, None, None] * (-1.0) ** np.add.outer(np.arange(6), np.arange(4))
    np.testing.assert_array_equal(other.forward(x), turn * plain.forward(turn * x))


@pytest.mark.parametrize(("kernel", "pixels"), [([0.5, 10, 5], 30), ([-20, 2, 0, 2, -20], 2)])
def test_a_circular_exponential_is_judged_by_the_series_that_a_call_runs(
    kernel: list[float], pixels: int
) -> None:
    """Products by waves round otherwise: more than the first series, and less than the second."""
    conv = ic.ExponentialConv(np.asarray([[kernel]], np.float32), padding="circular")
    x = np.random.default_rng(0).uniform(0.5, 1, (2000, 1, pixels)).astype(np.float32)
    again = conv.prepare((pixels,), check=False).inverse(conv.forward(x))
    off = (np.abs(again - x).max(axis=2) / x.max(axis=2)).max()
    with silent_error._seeded():
        errors = [judgement.judge(conv, (pixels,), "float32").error for _ in range(8)]
    assert off / 4 < min(errors) < max(errors) < 1.5 * off
