"""What the benchmarks time computes what it should, in turns."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks.contenders import ours, plain, references
from invconv_benchmarks.contenders.everyone import targets_of
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure import turns
from invconv_benchmarks.measure.contender import Contender
from invconv_benchmarks.suites import maps
from invconv_benchmarks.suites.group import Group

NUMPY = ("numpy", "cpu")
ALL = (NUMPY, ("torch", "cpu"), ("jax", "cpu"))


def setup(name: str, does: tuple[str, ...], target: Any = NUMPY, **changes: Any) -> Setup:
    group = Group("inverse", name, (2, 4, 5, 6), does, dtype="float64")
    return Setup(replace(group, **changes), targets_of([target])[0])


@pytest.mark.parametrize("name", ["corner 2", "corner 3", "emerging 3", "periodic 4", "qr", "plu"])
@pytest.mark.parametrize("target", ALL)
def test_our_contenders_run_and_invert(name: str, target: tuple[str, str]) -> None:
    there = setup(name, ("forward", "inverse"), target)
    calls = {c.does: c.build() for c in ours.contenders(there)}
    x = to_numpy(calls["inverse"]())
    assert there.residual(x) < 1e-14
    y = there.conv.forward(there.x)
    np.testing.assert_allclose(to_numpy(calls["forward"]()), to_numpy(y))


@pytest.mark.parametrize("name", ["corner 2", "corner 3"])
@pytest.mark.parametrize("target", ALL)
def test_the_kernel_alone_solves_on_numpys_memory(name: str, target: tuple[str, str]) -> None:
    there = setup(name, ("kernel",), target)
    found = ours.contenders(there)
    assert [c.name for c in found] == ["kernel"] * (target == NUMPY)
    for contender in found:
        assert there.residual(contender.build()()) < 1e-14


@pytest.mark.parametrize("name", ["corner 2", "corner 3", "periodic 2", "periodic 3", "plain"])
def test_plain_convolutions_agree(name: str) -> None:
    found = [
        to_numpy(c.build()())
        for target in ALL
        for c in plain.contenders(setup(name, ("forward",), target))
    ]
    assert len(found) == (8 if name.startswith("periodic") else 5)
    for y in found:
        np.testing.assert_allclose(y, found[0], atol=1e-12)


@pytest.mark.parametrize("name", ["corner 2", "periodic 3"])
@pytest.mark.parametrize("does", ["forward", "gradient"])
def test_no_clock_sees_the_yardstick_pad(
    name: str, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plain.contenders(setup(name, (does,), ALL[1]))
    (call,) = [c.build() for c in found if c.name == plain.CONV2D]
    monkeypatch.setattr(torch.nn.functional, "pad", None)
    call()


@pytest.mark.parametrize("target", ALL)
def test_gradients_run(target: tuple[str, str]) -> None:
    there = setup("corner 2", ("gradient",), target, peers=("autograd through the wavefronts",))
    found = [*ours.contenders(there), *references.contenders(there), *plain.contenders(there)]
    assert len(found) == {"numpy": 1, "torch": 3, "jax": 2}[target[0]]
    for contender in found:
        contender.build()()


def test_the_peers_solve_the_same_equation() -> None:
    peers = ("pixel by pixel", "SciPy sparse solve", "dense solve")
    for target in ALL[:2]:
        there = setup("corner 2", ("inverse",), target, peers=peers)
        for contender in references.contenders(there):
            assert contender.images is not None
            x = contender.images(contender.build()())
            assert there.residual(x) < 1e-14, contender.name


def test_reflections_form_the_matrix() -> None:
    there = setup("qr", ("matrix",), peers=("reflections",), shape=(1, 6, 1, 1))
    (peer,) = references.contenders(there)
    (mine,) = ours.contenders(there)
    np.testing.assert_allclose(peer.build()(), mine.build()(), atol=1e-12)


def test_absent_peers_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    there = setup("plain", ("forward", "unprepared"), ALL[1], peers=("normflows 1x1",))
    found = references.contenders(there)
    assert [c.absent for c in found] == ["normflows: not installed"] * 2
    assert [t.error for t in turns.measure(found, 0.01)] == ["normflows: not installed"] * 2


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def contender(name: str) -> Contender:
        def call() -> Any:
            order.append(name)
            time.sleep(2e-3)
            return np.zeros(1)

        return setup("corner 2", ()).contender(name, "ours", "forward", lambda: call)

    def broken() -> Any:
        raise RuntimeError("no such thing\nsecond line")

    bad = setup("corner 2", ()).contender("bad", "ours", "forward", broken)
    found = turns.measure([contender("a"), bad, contender("b")], 0.05)
    assert "aabb" * 3 in "".join(order)  # each sample after an untimed call
    assert found[1].error == "RuntimeError: no such thing"
    assert len(found[0].samples) >= 5
    assert min(found[0].samples) >= 2e-3


def test_arithmetic_is_counted() -> None:
    group = Group("inverse", "corner 2", (64, 12, 16, 16), ("inverse",), dtype="float32")
    assert maps.flops(group) == 2 * 4 * 12 * 12 * 64 * 256
    assert maps.flops(replace(group, map="emerging 3")) == 2 * maps.flops(group)
    assert maps.taps("periodic 5") == 25
    assert maps.input_bytes(group) == 4 * 64 * 12 * 256
    with pytest.raises(ValueError, match="expected the name of a map"):
        maps.build("square", 3)
