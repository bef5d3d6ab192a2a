"""`diagnose`: the digits it promises, against extended precision, and what it says."""

import itertools
import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import invconv as ic
from invconv import _cli
from invconv.arrays.namespaces import Shape
from invconv.stability.diagnosis import Diagnosis, what_to_do
from invconv.trust.condition import EPS, OVERFLOW
from invconv.trust.round_trip import Judgement
from invconv_benchmarks.demo import diagnose as growing
from invconv_conformance.truth.oracle import affine
from tests.selected import turned


def test_the_authors_condition_is_that_of_exact_fractions() -> None:
    """Along a row, K^-1's response to the last pixel is 1.3683^k / 0.0462^(k + 1)."""
    pixel, before = (Fraction(float(k)) for k in (0.0462, 1.3683))
    for n in (2, 4, 32, 60):
        truth = (pixel + before) * sum(before**k / pixel ** (k + 1) for k in range(n))
        found = ic.diagnose(growing.authors(), (n, n), "float32")
        assert found.condition == pytest.approx(float(truth), rel=1e-12)
        assert (found.norm, found.exact, found.resolved) == ("1-norm", True, True)
        for dtype in ("float32", "float64"):
            digits, worst = (getattr(found, f"{what}_{dtype}") for what in ("digits", "worst"))
            at_worst = max(0.0, -math.log10(float(truth) * float(np.finfo(dtype).eps)))
            assert worst == pytest.approx(min(digits, at_worst), abs=1e-9)
        assert found.growth == pytest.approx((1, 1.3683 / 0.0462), rel=0.04)


@pytest.mark.parametrize("conv", [growing.corner(-0.5), growing.authors()])
def test_two_digits_last_as_far_as_it_says(conv: ic.AutoregressiveConv) -> None:
    taps, *_, advice = ic.diagnose(conv, (32, 32), "float32").advice
    assert re.search(r"make the other taps smaller .* is (1\.5|29\.6), and below 1", taps)
    words = r"two digits last for grids of about (\d+) x \1 in float32, (\d+) x \2 in float64"
    (sides,) = re.findall(words, advice)
    for n, digits in zip(map(int, sides), ("digits_float32", "digits_float64"), strict=True):
        assert getattr(ic.diagnose(conv, (n, n)), digits) > 1.2
        assert getattr(ic.diagnose(conv, (n + n // 4 + 1,) * 2), digits) < 2


def test_many_channels_on_few_pixels() -> None:
    """An estimate on one pixel alone may be work enough: it is carried on from there."""
    rng = np.random.default_rng(0)
    conv = ic.Chain([ic.EmergingConv.init(130, rng=rng) for _ in range(3)])
    found = ic.diagnose(conv, (1, 2))
    assert not found.exact
    assert 1 / 4 < found.condition / np.linalg.cond(affine(conv, (1, 2))[0], 1) < 4


def test_the_guilty_step_is_named() -> None:
    rng = np.random.default_rng(0)
    emerging = ic.EmergingConv.init(1, rng=rng)
    emerging = emerging.replace(**{"second.kernel": growing.corner(-0.5).kernel})
    chain = ic.Chain([ic.QRConv1x1.init(1, rng=rng), emerging])
    found = ic.diagnose(chain, (32, 32), "float32")
    assert [name for name, _ in found.steps] == ["0", "1"]
    assert [name for name, _ in found.steps[1][1].steps] == ["first", "second"]
    assert "look at step 1, EmergingConv: look at step second" in found.advice[0]
    assert re.search(r"float64, where [78]\.\d digits", found.advice[1])
    assert found.blame == "1.second"
    assert found.growth == pytest.approx((1.63, 1.63), abs=0.01)
    turned_twice = ic.diagnose(ic.Inverse(ic.Inverse(emerging)), (32, 32), "float32")
    assert [name for name, _ in turned_twice.steps] == ["conv.conv.first", "conv.conv.second"]
    assert turned_twice.advice[0].startswith(f"look at step {turned_twice.blame}, Autoregressive")
    assert f"{turned_twice.blame}.kernel" in ic.Inverse(ic.Inverse(emerging)).parameters()


def test_the_grids_that_it_says_have_a_pixel() -> None:
    conv = ic.AutoregressiveConv(np.asarray([[[[1.0, -3.0], [0.1, 0.0]]]]))
    advice = ic.diagnose(conv, (2, 90), "float32").advice[-1]
    (sides,) = re.findall(r"of about 1 x (\d+) in float32, 1 x (\d+) in", advice)
    for n, digits in zip(map(int, sides), ("digits_float32", "digits_float64"), strict=True):
        most = (getattr(ic.diagnose(conv, (1, m)), digits) for m in (n, n + n // 4 + 1))
        assert next(most) > 1.2
        assert next(most) < 2


@pytest.mark.parametrize("grid", [(1,), (3,)])
def test_the_loss_is_that_of_steps_one_after_the_other(grid: Shape) -> None:
    """|P_i^-1| |K_i| |P_(i-1)| for P_i = K_i ... K_1, at worst; of dense matrices on both grids."""
    rng = np.random.default_rng(0)
    one, two, *turns = (ic.Conv1x1(rng.standard_normal((2, 2))) for _ in range(4))
    steps = [one, ic.Inverse(two), *turns, ic.Inverse(one), two]
    if grid == (3,):
        steps[2] = ic.AutoregressiveConv(np.eye(2)[..., None] * [1.0, 2.0])
    dense = [affine(step, grid)[0].astype(float) for step in steps]
    before, losses = np.eye(len(dense[0])), []
    for step, matrix in zip(steps, dense, strict=True):
        after, back = matrix @ before, np.linalg.inv(matrix)
        pairs = (np.linalg.inv(after), matrix, before), (np.linalg.inv(before), back, after)
        for norm in (1, np.inf):
            three = pairs[isinstance(step, ic.Inverse)]
            losses.append(math.prod(np.linalg.norm(a, norm) for a in three))
        before = after
    found = ic.diagnose(ic.Chain(steps), grid)
    assert found.loss == pytest.approx(max(losses))
    assert found.loss > 2 * found.condition
    shorter = affine(ic.Chain(steps), (2,))[0].astype(float)
    long, short = (np.linalg.norm(np.linalg.inv(matrix), 1) for matrix in (before, shorter))
    assert found.growth == pytest.approx((long / short,))


def test_many_steps_of_which_none_is_guilty() -> None:
    steps = [turned(math.exp(1.5), math.exp(-1.5), dtype=float)] * 5
    found = ic.diagnose(ic.Chain(steps), (4,), "float32")
    assert found.worst_float32 <= found.digits_float32 < 2
    assert found.advice[0].startswith("no step is bad by itself: they undo each other, or all")
    assert re.fullmatch(r"or solve in float64, where [789]\.\d digits are left", found.advice[1])


@pytest.mark.parametrize(
    ("conv", "words"),
    [
        (ic.Conv1x1(np.full((2, 2), math.nan)), "weight holds NaN or inf"),
        (ic.Conv1x1(np.zeros((2, 2))), "Conv1x1 is exactly singular on a grid of 8"),
        (ic.PeriodicConv(np.ones((1, 1, 2))), "PeriodicConv is exactly singular"),
        (ic.ActNorm(np.asarray([0.0, -1e4]), None), "exactly singular"),
        (ic.ActNorm(np.asarray([500.0, -500.0]), None), "beyond the range of float64"),
        (ic.AutoregressiveConv(np.asarray([[[1.0, -1e60]]])), "beyond the range of float64"),
        (ic.Chain([ic.PeriodicConv(np.full((2, 2, 3), math.inf))]), "0.kernel holds NaN or inf"),
    ],
)
def test_no_number_without_an_explanation(conv: ic.InvertibleConv, words: str) -> None:
    with np.errstate(all="ignore"):
        found = ic.diagnose(conv, (8,), "float32")
    assert found.condition == math.inf
    assert found.digits_float32 == found.worst_float64 == 0
    assert found.digits_float64 < 0.5 or isinstance(conv, ic.ActNorm)  # whose division is right
    assert words in found.trouble
    text = repr(found)
    assert text.startswith(f"{type(conv).__name__} on a grid of 8: no digit is left in float32")
    assert "nan" not in text.replace("log-det      nan", "")


def test_a_condition_beyond_the_range_or_the_digits() -> None:
    found = ic.diagnose(growing.authors(), (32, 256))
    assert found.condition == math.inf
    truth = 255 * math.log10(1.3683 / 0.0462) - math.log10(0.0462) + math.log10(1.4145)
    assert f"about 1e+{truth:.0f}, by its growth on a grid of" in found.trouble
    assert found.growth == pytest.approx((1, 29.617), rel=1e-3)
    row = ic.diagnose(ic.AutoregressiveConv(np.asarray([[[1.0, -1e60]]])), (8,))
    assert "about 1e+480, by its growth on a grid of 4" in row.trouble
    assert row.growth == pytest.approx((1e60,))
    for pivot, growth in ((1e-320, "None"), (1e-200, "(nan,)")):  # one pixel, or two, overflow
        found = ic.diagnose(ic.AutoregressiveConv(np.asarray([[[pivot, 1.0]]])), (8,))
        assert str(found.growth) == growth
    # one of factors that do not undo each other is
    scales = ic.ActNorm(np.asarray([0.0, -37.0]), None)
    corner = ic.AutoregressiveConv(np.eye(2)[..., None] * [1.0, 0.1])
    assert ic.diagnose(ic.Chain([scales, corner]), (3,)).resolved
    # a tiny number in place of a zero is not believed
    found = ic.diagnose(ic.PeriodicConv(np.ones((1, 1, 3))), (9,))
    assert not found.resolved
    assert not found.exact
    assert found.digits_float64 < 0.5
    assert "not resolved" in found.trouble


def test_the_channel_is_of_the_largest_column_and_factors_resolve_what_a_matrix_does_not() -> None:
    shear = ic.Conv1x1(np.asarray([[1.0, -100.0], [0.0, 1.0]]))
    for conv in (shear, ic.ActNorm(np.asarray([0.0, -3.0, 1.0]), None)):
        assert ic.diagnose(conv, (4,)).channel == 1
    qr = ic.QRConv1x1(np.ones((1, 2)), np.zeros((2, 2)), np.asarray([1.0, 1e-15]))
    for matrix, resolved in ((qr, True), (ic.Conv1x1(qr.matrix()), False)):
        assert ic.diagnose(matrix, (4,)).resolved == resolved
    inverse = ic.diagnose(ic.Inverse(ic.Conv1x1(2 * np.eye(2))), (4,))
    assert inverse.name == "Inverse of Conv1x1"
    assert inverse.log_det == pytest.approx(-8 * math.log(2))


def test_dtypes_of_every_library() -> None:
    conv = growing.corner(-0.3)
    for dtype in ("float32", np.dtype("float32"), torch.float32, torch.bfloat16, jnp.float32):
        assert ic.diagnose(conv, (4, 4), dtype).precision == "float32"
    assert ic.diagnose(conv, (4, 4)).precision == "float64"
    like = torch.zeros(0, dtype=torch.float32)
    assert ic.diagnose(conv.asarrays(like), (4, 4)).precision == "float32"


def test_the_command_reads_files_and_draws(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    drawn = lambda *_: np.random.Generator(np.random.PCG64(0))  # noqa: E731
    monkeypatch.setattr(np.random, "default_rng", drawn)
    conv = growing.corner(-0.5).asarrays(np.empty(0, np.float32))
    ic.save(conv, tmp_path / "conv.safetensors")
    file, picture = str(tmp_path / "conv.safetensors"), str(tmp_path / "picture.png")
    assert _cli.main(["diagnose", file, "--grid", "16", "16", "--picture", picture]) == 0
    out = capsys.readouterr().out
    assert out.startswith(repr(ic.diagnose(conv, (16, 16))))
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    half = conv.asarrays(torch.zeros(0, dtype=torch.bfloat16))
    ic.save(half, tmp_path / "half.safetensors")
    assert _cli.main(["diagnose", str(tmp_path / "half.safetensors"), "--grid", "16", "16"]) == 0
    assert capsys.readouterr().out == f"{ic.diagnose(conv, (16, 16))}\n"
    assert _cli.main(["diagnose", "--example", "authors"]) == 0
    assert "condition    1.31e+47 (1-norm, exact)" in capsys.readouterr().out
    flow = str(Path(__file__).parents[1] / "files" / "of_0_2_0" / "flow.safetensors")
    assert _cli.main(["diagnose", flow, "--grid", "4", "4"]) == 2
    assert "expected an operator, got a flow: invconv_torch.load" in capsys.readouterr().err
    vectors = ic.Conv1x1(np.diag([1.0, 4.0]), ndim=0)
    ic.save(vectors, tmp_path / "vectors.safetensors")
    drawn_to = ["--picture", str(tmp_path / "vectors.png")]
    assert _cli.main(["diagnose", str(tmp_path / "vectors.safetensors"), *drawn_to]) == 0
    assert "condition    4 (2-norm, exact)" in capsys.readouterr().out
    assert _cli.main(["diagnose", file]) == 2
    assert "--grid: expected pixels along each axis" in capsys.readouterr().err


CORNER = ic.AutoregressiveConv(np.ones((1, 1, 2)))


@pytest.mark.parametrize(
    ("conv", "grid", "growth"),
    [
        (growing.corner(-0.9), (1, 1), "not known along axis 0 and 1, too short for all taps"),
        (growing.corner(-3.0), (1, 9), "not known along axis 0"),
        (growing.corner(-0.9), (1, 9), "axis 1 (0.04 digits), not known along axis 0"),
        (ic.Chain([CORNER, replace(CORNER, dilation=8)]), (8,), "not known along axis 0"),
        (ic.Conv1x1(np.eye(2)), (1,), "none: a larger grid loses no more"),
    ],
)
def test_growth_that_no_tap_shows(conv: ic.InvertibleConv, grid: Shape, growth: str) -> None:
    found = ic.diagnose(conv, grid)
    assert growth in " ".join(repr(found).split())
    assert not any("two digits last" in text for text in found.advice)


_WORDS = ("odd", "zero", "symmetric", "periodic")


@pytest.mark.parametrize("words", list(itertools.product(_WORDS, repeat=2)), ids="-".join)
def test_the_frequency_is_of_the_worst_wave_between_any_walls(words: tuple[str, ...]) -> None:
    """Its periods are those of the dense matrix's last singular vector, along each axis.

    A second channel has 10 less the value of the first one at each frequency.
    """
    grid, centre = (5, 7), tuple(int(word == "periodic") for word in words)
    for signs in itertools.product((0.5, -0.5), repeat=2):
        taps = ([s] * (w == "periodic") + [1.02, s] for w, s in zip(words, signs, strict=True))
        kernel = np.multiply.outer([[1.0, 0.0], [0.0, -1.0]], np.multiply.outer(*taps))
        kernel[(1, 1, *centre)] += 10
        conv = ic.SymmetricConv(kernel, boundary=words)
        found, matrix = ic.diagnose(conv, grid), affine(conv, grid)[0].astype(float)
        assert found.frequency is not None
        assert found.resolved
        assert found.growth is None  # its pixels have no order
        waves = []
        for word, f, n in zip(words, found.frequency, grid, strict=True):
            wall, place = word in ("odd", "zero"), np.arange(n) + 0.5 * (word == "symmetric")
            turns = 2 * np.pi * f * (place + wall) / (n + wall)
            waves.append(np.sin(turns) if wall else np.cos(turns))
        values = np.linalg.svd(matrix)[1]
        x = np.multiply.outer([1, 0], np.multiply.outer(*waves)).reshape(-1)
        assert np.linalg.norm(matrix @ x) / np.linalg.norm(x) == pytest.approx(values[-1])
        assert found.condition == pytest.approx(values[0] / values[-1])


def reported(name: str, condition: float, loss: float, growth: Any, **more: Any) -> Diagnosis:
    errors = more.pop("errors", (1e-3, 1e-12))
    more = {"norm": "1-norm", "precision": "float32", "blame": "", "advice": ("one", "two")} | more
    more |= {"condition": condition, "loss": loss, "growth": growth, "log_det": -1.25}
    more["judgements"] = dict(zip(EPS, map(Judgement, errors), strict=True))
    return Diagnosis(name=name, spatial_shape=(4, 8, 80), **more)


REPORT = """\
Chain on a grid of 4 x 8 x 80: 3.0 digits are left in float32
  log-det      -1.25
  condition    2e+06 (1-norm, not resolved)
               because
  loss         4.1e+06, as the steps are solved one after the other
  digits left  3.0 of 6.9 in float32, 12.0 of 15.7 in float64, measured
               0.3 of 6.9 in float32,  9.0 of 15.7 in float64, at worst
  measured     on round trips of random images; most is lost by step 0
  growth       1.01 per pixel on axis 1 (0.00 digits), slow on axis 2: its last half costs 0.2
               digits, not known along axis 0, too short for all taps
  worst        errors in channel 1 at pixel (0, 1, 2)
  steps                                     condition  float32 float64  growth
               0 PeriodicConv                     inf      3.0    12.0  -
               1 AutoregressiveConv                20      3.0    12.0  ?, 1.2, 3
  to do        one
               two"""


def test_a_report_has_the_rows_of_what_is_known() -> None:
    wave = reported("PeriodicConv", math.inf, math.inf, None, frequency=(1, 5, 40), trouble="why")
    first = reported("AutoregressiveConv", 20.0, 20.0, (math.nan, 1.2, 3.0))
    known = {"channel": 1, "pixel": (0, 1, 2), "exact": False, "resolved": False, "blame": "0"}
    steps, growth = (("0", wave), ("1", first)), (math.nan, 1.01, 1.009)
    chain = reported("Chain", 2e6, 4.1e6, growth, steps=steps, trouble="because", **known)
    assert repr(chain) == REPORT
    _, _, *rows = repr(wave).splitlines()
    assert rows[:2] == ["  condition    inf", "               why"]
    assert rows[5] == "  growth       not defined: see above"
    assert rows[6] == "  worst        errors with 1 x -3 x 40 periods across the grid"
    one = reported("Conv1x1", 500.0, 1000.0, None, channel=2, exact=False)
    _, _, *rows = repr(one).splitlines()
    assert rows[0] == "  condition    500 (1-norm, an estimate)"
    assert rows[4] == "  growth       not defined: its pixels have no order"
    assert rows[5] == "  worst        errors in channel 2 at any pixel"
    assert "  worst        -" in repr(first)


def test_the_advice_is_for_the_cause() -> None:
    rng, inf, squares = np.random.default_rng(0), math.inf, "or use least_squares(y, damp), which"
    one, qr, pair = (cls.init(2, rng=rng) for cls in (ic.Conv1x1, ic.QRConv1x1, ic.EmergingConv))
    chain, kept = ic.Chain([qr, one]), reported("Conv1x1", 9.0, 9.0, None)

    def advice(host: Any, condition: float, loss: float, **more: Any) -> list[str]:
        errors = {"errors": (1.0, 1.0)}  # nothing is left
        found = what_to_do(host, reported("", condition, loss, None, **(errors | more)))
        return [text[: len(squares)] if text.startswith(squares) else text for text in found]

    for host, *numbers in ((one, 9.0, 9e9), (pair, 9.0, 9e9), (qr, 1e3, 1e5)):
        assert advice(host, *numbers) == [host.advice(None), squares][: 1 + (host is not pair)]
    text, _ = advice(qr, 9.0, 901.0)
    assert text.startswith("bring the factors closer to their initialisation")
    (text,) = advice(pair, 9.0, 9.0, errors=(0.01, 1.0))
    assert text == "no change is needed on this grid in float32"
    _, text = advice(pair, 9.0, 9.0, errors=(1.0, 0.01))
    assert text == "or solve in float64, where 2.0 digits are left"
    assert len(advice(pair, 9.0, 9.0, precision="float64")) == 1
    assert advice(pair, inf, inf, trouble=f"{OVERFLOW}; about 1e+400") == [pair.advice(None)]
    (text,) = advice(pair, inf, inf, trouble="first.kernel holds NaN")
    assert text == "repair that first: nothing else can be said"
    lost = reported("Lost", 9.0, 9.0, None, errors=(1.0, 1.0))
    for step, cause in ((kept, one.advice(None)), (lost, "one")):
        (text,) = advice(chain, 9.0, 9.0, steps=(("0", kept), ("1", step)), blame="1")
        assert text == f"look at step 1, {step.name}: {cause}"
    (text,) = advice(chain, 9.0, 9.0, steps=(("1", kept), ("10", lost)), blame="10")
    assert text == "look at step 10, Lost: one"
    shifted, biased = one.replace(bias=np.ones(2)), pair.replace(bias=np.ones(2))
    hides = "make the bias smaller: it hides the digits of an ordinary y"
    assert advice(shifted, 9.0, 8e4) == advice(shifted, 9.0, 9e9, blame="bias") == [hides, squares]
    assert advice(shifted, 9.0, 9e4) == [one.advice(None), squares]  # by the loss at worst
    steps = ("first", kept), ("second", kept)
    assert advice(biased, 9.0, 9.0, steps=steps, blame="bias") == [hides]
    fine = {"errors": (1e-9, 1e-9), "steps": (("conv.0", kept), ("conv.1", kept))}
    inside = reported("Inverse of Chain", 9.0, 9.0, None, blame="conv.1", **fine)
    chain = ic.Chain([ic.Inverse(ic.Chain([qr, one]))])
    (text,) = advice(chain, 9.0, 9.0, steps=(("0", inside),), blame="0.conv.1")
    assert text == (
        f"look at step 0, Inverse of Chain: look at step conv.1, Conv1x1: {one.advice(None)}"
    )
