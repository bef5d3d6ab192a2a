"""An inverse on a large grid, or of a wide kernel, is judged by less work than its taps are."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from invconv.operators.base import conditions, judgement
from invconv.operators.base.judgement import Judgement
from invconv_benchmarks.suites.group import Shape

_LITTLE, _ALL = 2.0**13, 1e30  # work
_TIMES = 15  # the samples of a corner that grows differ by half a digit from time to time
_AROUND = np.arange(3.0) ** 2
_GAUSSIAN = np.exp(-np.add.outer(_AROUND, _AROUND) / 1.3)
_BOX = ic.PeriodicConv(np.ones((1, 1, 3, 3)) / 9, bias=np.ones(1))


def _moved(conv: ic.InvertibleConv) -> ic.InvertibleConv:
    rng = np.random.default_rng(1)
    moved = {n: p + 0.1 * rng.standard_normal(p.shape) for n, p in conv.parameters().items()}
    return conv.replace(**moved)


_GROWING = ic.AutoregressiveConv(np.asarray([[[[1, -0.55], [-0.55, 0]]]]), bias=np.ones(1))
_PAIR, _SERIES = (
    _moved(cls.init(2, rng=np.random.default_rng(0)))
    for cls in (ic.EmergingConv, ic.ExponentialConv)
)
LARGE: dict[str, tuple[ic.InvertibleConv, Shape]] = {
    "a corner that grows": (_GROWING, (64, 60)),
    "sums along a row": (ic.AutoregressiveConv(np.asarray([[[1, -0.999]]])), (3000,)),
    "an emerging pair": (_PAIR, (40, 36)),
    "a blur": (ic.SymmetricConv(_GAUSSIAN * np.eye(2)[..., None, None]), (45, 52)),
    "a box": (_BOX, (47, 50)),
    "boxes, singular on a half of the grid": (
        ic.Chain([_BOX, ic.Conv1x1(np.ones((1, 1)))]),
        (35, 44),
    ),
    "an exponential": (_SERIES, (40, 36)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LARGE)
def test_a_part_of_a_grid_tells_what_the_whole_loses(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, shape = LARGE[name]
    conv = conv.asarrays(np.empty(0, dtype))

    def judged(work: float) -> list[Judgement]:
        monkeypatch.setattr(conditions, "WORK", work)
        return [judgement.judge(conv.replace(), shape, dtype) for _ in range(_TIMES)]

    part, whole = judged(_LITTLE), judged(_ALL)
    assert "carried on" in part[0].rests_on or "single frequencies" in part[0].rests_on
    digits = [statistics.median(one.digits(dtype) for one in found) for found in (part, whole)]
    assert digits[0] == pytest.approx(digits[1], abs=1)
    monkeypatch.setattr(conditions, "WORK", _LITTLE)
    known, number = ic.diagnose(conv, shape, dtype), conv.condition(shape)
    apart = abs(math.log10(known.condition / number))
    assert apart <= (1e-9 if known.exact else 1)


@pytest.mark.parametrize("within", [False, True], ids=["alone", "within a chain"])
@pytest.mark.parametrize("library", [np, torch], ids=["numpy", "torch"])
def test_a_frequency_that_alone_is_wrong_is_found(
    library: Any, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K_hat is 1e-5 there, all that 1,024 taps leave of 1; no part of the grid has it."""
    monkeypatch.setattr(conditions, "WORK", 1.0)
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
    assert found.error == pytest.approx(off, rel=0.2)
