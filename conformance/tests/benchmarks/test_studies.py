"""Limits that the studies measure without a clock, and the pairs that they time."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from invconv_benchmarks.measure import threads
from invconv_benchmarks.measure.calls import python_calls
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.studies import choices, first_solve, overhead
from invconv_benchmarks.studies.flow_pairs import flow_pairs
from invconv_benchmarks.studies.pairs import Pair, pairs

compiled = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="needs llvmlite")


@compiled
def test_calls_of_python_keep_their_limits() -> None:
    counts = overhead.counts()
    assert len(counts) == 5
    assert [one for one in counts if not 0 < one.calls <= one.limit] == []


@compiled
def test_a_first_solve_is_of_a_new_process() -> None:
    seconds = first_solve.in_a_process("float32")  # raises if anything else imports llvmlite
    assert seconds["float32", 12] > 1e-3  # llvmlite alone takes longer to import


def test_pairs_compute_images_of_the_same_shape() -> None:
    small_glow = flow_pairs((2, 1, 4, 4), {"levels": 1, "depth": 1, "width": 4}, samples=3)
    for pair in (*pairs(), *small_glow):
        with torch.set_grad_enabled(pair.gradients):
            ours, theirs = pair.ours(), pair.theirs()
        images = ours[0] if isinstance(ours, tuple) else ours
        assert images.shape == theirs.shape == (() if "step" in pair.does else pair.shape)


@pytest.mark.parametrize(
    ("ratio", "taken", "verdict"),
    [(0.5, True, "pass"), (2, True, "miss"), (0.5, False, "miss"), (0.95, False, "pass")],
)
def test_a_choice_misses_where_the_other_way_is_faster(
    ratio: float, taken: bool, verdict: str
) -> None:
    pair = Pair("wide", (1, 2, 3, 4), None, lambda: None, lambda: None)
    timed = overhead.Timed(pair, 2e-3, Interval(ratio, ratio, ratio))
    assert choices.verdict(timed, taken) == verdict


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
