"""What the study of overhead says, and that calls of Python keep their limits."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from invconv.flows.architecture import MIXINGS
from invconv_benchmarks.measure import threads
from invconv_benchmarks.measure.calls import python_calls
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.studies import overhead
from invconv_benchmarks.studies.flow_pairs import flow_pairs
from invconv_benchmarks.studies.overhead import Count, Found
from invconv_benchmarks.studies.pairs import Pair
from invconv_benchmarks.studies.pairs import pairs as pairs_of_overhead
from invconv_benchmarks.suites.group import as_text
from invconv_conformance import printing

EMERGING = {"1x12x8x8": (5, 7), "64x12x16x16": (1.3, 1.6), "32x48x8x8": (1.3, 1.6)}
TIMED = [
    *(
        (shape, f"EmergingConv2d {does}", limit)
        for shape, (plain, qr) in EMERGING.items()
        for does, limit in (("forward", plain), ("step", plain), ("QR step", qr))
    ),
    *(
        ("100x12x32x32", f"{name} inverse {library}", 1.5)
        for name in ("1x1", "PLU 1x1", "QR 1x1")
        for library in ("torch", "numpy")
    ),
    ("64x12x16x16", "PeriodicConv2d forward", 2),
    ("64x12x16x16", "PeriodicConv2d step", 2),
    *(
        ("64x12x16x16", f"exponential {does}, {padding}", limit)
        for padding in ("zeros", "circular")
        for does, limit in (("forward", 1), ("inverse", 1))
    ),
    *(("64x12x16x16", f"symmetric {does} / periodic", 2) for does in ("forward", "inverse")),
    *(
        ("64x12x16x16", f"inverse / forward, {name}", 1.3)
        for name in (
            *("symmetric", "periodic", "exponential, zeros", "exponential, circular"),
            *("orthogonal 1x1", "circulant 1x1"),
        )
    ),
]
COUNTED = {
    "EmergingConv inverse, NumPy": 140,
    "prepared inverse, NumPy": 40,
    "EmergingConv2d forward": 150,
    "EmergingConv2d step": 300,
    "EmergingConv2d inverse, eval, no_grad": 60,
}
VERDICTS = ("pass", "unclear", "miss")
compiled = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="needs llvmlite")


@compiled
def test_calls_of_python_keep_their_limits() -> None:
    found = overhead.counts()
    assert {one.does: one.limit for one in found} == COUNTED
    assert [one for one in found if not 0 < one.calls <= one.limit] == []


def test_pairs_work_on_images_of_the_same_shape() -> None:
    pairs = list(pairs_of_overhead())
    assert [(as_text(p.shape), p.does, p.limit) for p in pairs] == TIMED
    for pair in pairs:
        ours, theirs = pair.ours(), pair.theirs()
        if pair.does.endswith("step"):
            assert bool(ours.isfinite())
            assert bool(theirs.isfinite())
        else:
            images = ours[0] if isinstance(ours, tuple) else ours
            assert images.shape == theirs.shape == pair.shape


def test_nothing_is_cut_where_the_output_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    counted = [Count(20 * f"{i} does what takes many words, ", 1, 2) for i in range(2)]
    printing.console().print(overhead.counts_table(counted))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-3:] for line in lines[-2:]] == 2 * [["1", "2", "pass"]]
    assert all(one.does.strip() in line for one, line in zip(counted, lines[-2:], strict=True))


def test_flows_are_timed_beside_the_same_flow_with_plain_1x1s() -> None:
    small = {"levels": 1, "depth": 1, "width": 4}
    found = {pair.does: pair for pair in flow_pairs((2, 1, 4, 4), small, samples=3)}
    others = MIXINGS[1:]
    assert list(found) == [
        *(f"Glow step, {mixing} / plain" for mixing in others),
        *(f"Glow samples, {mixing} / plain" for mixing in others),
    ]
    limits = {name: pair.limit for name, pair in found.items() if pair.limit is not None}
    assert limits == {
        "Glow step, emerging / plain": 1.25,
        "Glow step, qr / plain": 1.05,
        **{f"Glow samples, {mixing} / plain": 1.2 for mixing in ("qr", "emerging", "periodic")},
    }
    for name, pair in found.items():
        for call in (pair.ours, pair.theirs):
            with torch.set_grad_enabled(pair.gradients):
                result = call()
            assert result.shape == (() if "step" in name else (3, 1, 4, 4))
            assert bool(result.isfinite().all())


@compiled
@pytest.mark.slow
def test_both_tables_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(overhead, "flow_pairs", list)  # which takes minutes
    overhead.main(["--seconds", "0.05"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    judged = [line for line in lines if line.endswith(VERDICTS) and ":" not in line]
    timed, counted = judged[: len(TIMED)], judged[len(TIMED) :]
    for line, (shape, does, limit) in zip(timed, TIMED, strict=True):
        assert line.startswith(f"{shape} ")
        assert f" {does} " in line
        assert line.split()[-2] == f"{limit:g}"
    for line, (does, most) in zip(counted, COUNTED.items(), strict=True):
        assert line.startswith(f"{does} ")
        assert line.split()[-2:] == [str(most), "pass"]


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Interval(1.2, 1.1, 1.3), "pass"),
        (Interval(1.2, 1.1, 1.31), "unclear"),
        (Interval(1.4, 1.31, 1.5), "miss"),
    ],
)
def test_a_time_passes_only_with_its_whole_spread(ratio: Interval, verdict: str) -> None:
    pair = Pair("step", (1, 2, 3, 4), 1.3, lambda: None, lambda: None)
    table = overhead.times_table([Found(pair, 2e-3, ratio, 1.125)])
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells == [
        "1x2x3x4", "step", "2000", f"{ratio.value:.2f}", f"{ratio.low:.2f}-{ratio.high:.2f}",
        "1.12", "1.3", verdict,
    ]  # fmt: skip


def test_a_time_without_a_limit_has_no_verdict() -> None:
    pair = Pair("step", (1, 2, 3, 4), None, lambda: None, lambda: None)
    found = Found(pair, 2e-3, Interval(9, 9, 9), 9.0)
    assert found.verdict == "-"
    cells = [next(iter(column.cells)) for column in overhead.times_table([found]).columns]
    assert cells[-2:] == ["-", "-"]


@pytest.mark.parametrize(("calls", "verdict"), [(40, "pass"), (41, "miss")])
def test_a_count_passes_up_to_its_limit(calls: int, verdict: str) -> None:
    table = overhead.counts_table([Count("step", calls, 40)])
    assert [next(iter(c.cells)) for c in table.columns] == ["step", str(calls), "40", verdict]


def test_what_fails_in_overhead_says_so() -> None:
    pair = Pair("step", (1, 2, 3, 4), 1.3, partial(int, "no"), lambda: None)
    with pytest.raises(RuntimeError, match="step: ValueError: invalid literal"):
        overhead.compare([pair], 0.01)


def test_functions_of_python_are_counted_when_warm() -> None:
    known: dict[str, Any] = {}

    def inner() -> int:
        return len("ab")  # written in C

    def outer() -> int:
        if "warm" not in known:
            known["warm"] = inner() + inner()
        return inner()

    profile: Callable[..., Any] = lambda *_: None  # noqa: E731
    sys.setprofile(profile)
    try:
        assert python_calls(outer) == 1
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)


def test_one_thread_is_for_a_while() -> None:
    before = threads.number("numpy")
    threads.set_number("numpy", 2)
    try:
        with threads.one():
            assert (threads.number("numpy"), threads.number("torch")) == (1, 1)
        assert threads.number("numpy") == 2
    finally:
        threads.set_number("numpy", before)
