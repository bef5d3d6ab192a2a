"""When an inverse cannot be right: the warning, the numbers behind it, and large grids.

Where no warning is expected, one is an error (pyproject.toml).
"""

import math
import re
from functools import partial
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.arrays.registry import agnostic
from invconv.operators.base import conditions, judgement
from invconv.trust import limits
from invconv_benchmarks.demo import diagnose as growing
from invconv_benchmarks.studies import operators
from invconv_conformance.cases.table import perturbed
from invconv_conformance.truth import oracle
from tests.selected import turned


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_authors_kernel_warns(dtype: str) -> None:
    x = np.ones((1, 1, 32, 32), dtype)
    conv = growing.authors().asarrays(x)
    for attempt in (lambda: conv.prepare((32, 32)), lambda: conv.inverse(x)):
        conv.prepare((32, 32), check=False)  # which hides nothing from the others
        with pytest.warns(ic.IllConditionedWarning) as caught, np.errstate(all="ignore"):
            attempt()
        text = str(caught[0].message)
        assert "the inverse of AutoregressiveConv on a grid of 32 x 32 is off by" in text
        (number,) = re.findall(r"it has condition number ([^)]+)\)", text)
        assert float(number) == pytest.approx(1.31e47, rel=5e-3)
        assert f"0.0 digits are left in {dtype}" in text
        assert "use float64" not in text  # which loses them, too
        assert caught[0].filename == __file__
    assert math.isfinite(float(conv.log_det((32, 32))))


@pytest.mark.parametrize(("channels", "dtype"), [(1, "float32"), (12, "float64"), (48, "float32")])
def test_the_papers_initialisation_gives_no_warning(channels: int, dtype: str) -> None:
    rng, like = np.random.default_rng(channels), np.empty(0, dtype)
    classes = ic.EmergingConv, ic.PeriodicConv, ic.QRConv1x1
    steps = [cls.init(channels, rng=rng, like=like) for cls in classes]
    for conv in (*steps, ic.Chain([steps[2], steps[0]])):
        conv.prepare((64, 64))


ESTIMATED = ("corner", "raster", "EmergingConv", "Chain")
KNOWN = 1e8  # up to which float64 knows a condition number


@pytest.mark.parametrize("family", ESTIMATED)
def test_an_estimate_is_within_a_factor_of_three(family: str, monkeypatch: Any) -> None:
    """Of random operators, on grids that are taken for large ones; the law has exact numbers."""
    monkeypatch.setattr(limits, "EXACT_NUMBERS", 0)
    for name, unknowns in {"SMALL": 200, "LARGE": 600}.items():
        monkeypatch.setattr(operators, name, unknowns)
    compared = 0
    for rng in np.random.default_rng([3, list(operators.FAMILIES).index(family)]).spawn(12):
        conv, shape = operators.FAMILIES[family](rng)
        matrix, said = oracle.affine(conv, shape)[0], conv.condition(shape, norm=1)
        truth = float(np.linalg.norm(matrix, 1) * np.linalg.norm(np.linalg.inv(matrix), 1))
        if truth < KNOWN:
            assert truth / 3 <= said <= truth * (1 + 1e-6)  # an estimate from below
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("settings", [{"mask": "raster"}, {"direction": (1, -1)}], ids=repr)
def test_it_is_exact_wherever_the_longest_columns_are(settings: Any) -> None:
    rng = np.random.default_rng(0)
    conv = perturbed(ic.AutoregressiveConv.init(2, rng=rng, **settings), rng)
    matrix = oracle.affine(conv, (4, 5))[0].astype(float)
    assert conv.condition((4, 5)) == pytest.approx(np.linalg.cond(matrix, 1))


def test_an_inverse_is_judged_once_by_each_solver(monkeypatch: Any) -> None:
    """On the host, with the bias there, too."""
    judge, conv = Mock(wraps=judgement.judge), growing.corner(-0.5).replace(bias=np.ones(1))
    conv = conv.asarrays(torch.zeros(()))
    monkeypatch.setattr(judgement, "judge", judge)
    for forced in (False, False, True, True):
        with agnostic(forced):
            conv.prepare((6, 6))
    assert judge.call_count == 2


def test_it_is_exact_up_to_512_unknowns_and_some_are_remembered() -> None:
    series, one = ic.ExponentialConv(np.full((1, 1, 3), 0.1)), ic.Conv1x1(np.eye(1))
    assert [conditions.condition(series, (n,)).exact for n in (512, 513)] == [True, False]
    wide = ic.ExponentialConv(np.full((1, 1, 499), 1e-2))  # of which fewer are as much work
    assert [conditions.condition(wide, (n,)).exact for n in (100, 500)] == [True, False]
    for n in range(1, 200):
        one.condition((n,))
        assert len(one._conditions) <= limits.REMEMBERED


def test_every_call_that_inverts_warns_at_the_callers_line() -> None:
    conv, x = growing.authors(), np.ones((1, 1, 32, 32))
    inverse, chain = ic.Inverse(conv), ic.Chain([conv])
    calls = conv.inverse_and_log_det, inverse.forward, ic.Chain([inverse]).forward, chain.inverse
    block: Any = partial(conv.inverse, before=x[:, :, :1])
    pull: Any = partial(conv.inverse_vjp, before=x[:, :, :1])
    pulls = conv.inverse_vjp, inverse.forward_vjp, pull
    for call in (*calls, ic.Inverse(inverse).inverse, block, *pulls):
        with pytest.warns(ic.IllConditionedWarning, match="0.0 digits are left") as caught:
            call(*[x] * (1 + (call in pulls)))
        assert caught[0].filename == __file__
    conv.inverse_vjp(x, x, check=False)
    pull(x, x, check=False)
    conv.inverse_vjp(x[..., :2, :2], x[..., :2, :2])


def test_who_does_not_look_does_not_look_at_inverses_inside_either() -> None:
    one = np.ones((1, 2, 2, 2), np.float32)
    chain = ic.Chain([ic.Inverse(turned(1.0, 1e-7)), ic.ActNorm.init(2, like=one)])
    with pytest.warns(ic.IllConditionedWarning):
        chain.inverse_vjp(one, one)
    chain.inverse_vjp(one, one, check=False)
    chain.prepare((2, 2), check=False).inverse(one)
    inverted = ic.Inverse(turned(1.0, 1e-7)).forward, ic.Inverse(chain.steps[0]).inverse
    for call in (chain.forward, *inverted):
        with pytest.warns(ic.IllConditionedWarning, match="the inverse of (Conv1x1|Inverse) on"):
            call(one)


_AROUND = np.arange(3.0) ** 2
_GAUSSIAN = np.exp(-np.add.outer(_AROUND, _AROUND) / 1.3)
_BOX = ic.PeriodicConv(np.ones((1, 1, 3, 3)) / 9, bias=np.ones(1))
_SUMS = np.asarray([[[1, -0.999]]])
_GROWING = ic.AutoregressiveConv(np.asarray([[[[1, -0.55], [-0.55, 0]]]]), bias=np.ones(1))
_PAIR, _SERIES = (
    perturbed(cls.init(2, rng=np.random.default_rng(0)), np.random.default_rng(1))
    for cls in (ic.EmergingConv, ic.ExponentialConv)
)
LARGE: dict[str, tuple[ic.InvertibleConv, Shape]] = {
    "a corner that grows": (_GROWING, (64, 60)),
    "sums along a row": (ic.AutoregressiveConv(_SUMS, direction=-1), (3000,)),
    "an emerging pair": (_PAIR, (40, 36)),
    "a blur": (ic.SymmetricConv(_GAUSSIAN * np.eye(2)[..., None, None]), (45, 52)),
    "a box": (_BOX, (47, 50)),
    "boxes, singular on a half": (ic.Chain([_BOX, ic.Conv1x1(np.ones((1, 1)))]), (35, 44)),
    "an exponential": (_SERIES, (40, 36)),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_part_of_a_grid_tells_the_condition_of_the_whole(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "ESTIMATE", 2.0**13)
    draw = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed=1: draw(seed))  # in every run alike
    conv, shape = LARGE[name]
    known, number = ic.diagnose(conv, shape), conv.condition(shape)
    apart = abs(math.log10(known.condition / number))
    assert apart <= (1e-9 if known.exact else 1)
    if isinstance(conv, ic.AutoregressiveConv):  # the pixel from which errors go farthest
        ways = zip(conv._family.direction, shape, strict=True)
        assert known.pixel == tuple(0 if way > 0 else n - 1 for way, n in ways)


@pytest.mark.parametrize("within", [False, True], ids=["alone", "within a chain"])
@pytest.mark.parametrize("library", [np, torch], ids=["numpy", "torch"])
def test_one_wrong_frequency_is_found(library: Any, within: bool, monkeypatch: Any) -> None:
    """K_hat is 1e-5 there, all that 1,024 taps leave of 1; no part of the grid has it."""
    monkeypatch.setattr(limits, "TAPS", 0.0)
    wave = np.cos(2 * np.pi * (np.arange(32) - 15) / 32)[:, None] * np.ones((1, 1, 32, 32))
    kernel = (-(1 - 1e-5) / 512 * wave).astype(np.float32)
    kernel[0, 0, 15, 15] += 1
    image = ic.PeriodicConv(kernel.astype(float)).forward(wave).astype(np.float32)
    conv: ic.InvertibleConv = ic.PeriodicConv(library.asarray(kernel))
    if within:
        conv = ic.Chain([conv, ic.ActNorm.init(1, like=conv.parameters()["kernel"])])
    with pytest.warns(ic.IllConditionedWarning, match="off by"):
        off = np.abs(np.asarray(conv.inverse(library.asarray(image))) - wave).max()
    assert off > 0.01
    found = judgement.judge(conv, (32, 32), "float32")
    assert 0.8 * off < found.error < 2 * off
