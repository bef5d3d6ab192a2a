"""Benchmarks: what is timed is right, in turns, by the right clock; runs may die or be stopped."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from invconv._cli import main
from invconv.arrays.namespaces import to_numpy
from invconv.kernels import maps
from invconv_benchmarks import runs
from invconv_benchmarks.contenders import layers, operators
from invconv_benchmarks.contenders.operators import Setup
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.measure.timing import Contender
from invconv_benchmarks.runs import Job, run, targets_of
from invconv_benchmarks.studies import overhead, survey
from invconv_benchmarks.studies.draws import drawn
from invconv_benchmarks.suites import LFILTER, SPECTRAL, Group, select

NUMPY = ("numpy", "cpu")
ALL = (NUMPY, ("torch", "cpu"), ("jax", "cpu"))


def setup(name: str, does: tuple[str, ...], target: Any = NUMPY, **changes: Any) -> Setup:
    group = Group("inverse", name, (2, 4, 5, 6), does, dtype="float64")
    return Setup(replace(group, **changes), targets_of([target])[0])


@pytest.mark.parametrize("name", ["corner 2", "emerging 3", "periodic 4", "exponential 3", "plu"])
@pytest.mark.parametrize("target", ALL)
def test_our_contenders_run_and_invert(name: str, target: tuple[str, str]) -> None:
    there = setup(name, ("forward", "inverse"), target)
    forward, inverse = (c.build()() for c in operators.ours(there))
    assert there.residual(to_numpy(inverse)) < 1e-14
    assert there.residual(there.values * np.nan) == 1e30
    np.testing.assert_allclose(to_numpy(forward), to_numpy(there.conv.forward(there.x)))


@pytest.mark.parametrize("name", ["corner 2", "corner 3", "periodic 2", "periodic 3", "plain"])
def test_plain_convolutions_agree(name: str) -> None:
    setups = (setup(name, ("forward",), target) for target in ALL)
    found = [to_numpy(c.build()()) for there in setups for c in operators.plain(there)]
    assert len(found) == (7 if name.startswith("periodic") else 4)
    for y in found:
        np.testing.assert_allclose(y, found[0], atol=1e-12)


def test_the_peers_solve_the_same_equation() -> None:
    for name, shape, peers in (
        ("corner 2", (2, 4, 5, 6), ("pixel by pixel", "SciPy sparse solve")),
        ("corner 3", (2, 1, 9), (LFILTER,)),
        ("periodic 3", (2, 3, 5, 6), (SPECTRAL,)),
    ):
        for target, count in zip(ALL, (len(peers), len(peers) - 1, 0), strict=True):
            there = setup(name, ("inverse",), target, shape=shape, peers=peers)
            found = operators.peers(there)
            odd = replace(there, group=replace(there.group, suite="odd"))
            assert not operators.plain(odd)  # a peer is the yardstick
            assert len(found) == count
            for contender in found:
                assert there.residual(to_numpy(contender.build()())) < 1e-14, contender.name


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def contender(name: str) -> Contender:
        def run() -> Any:
            order.append(name)
            time.sleep(2e-3)
            return np.zeros(1)

        return setup("corner 2", ()).contender(name, "ours", "forward", lambda: run)

    def broken() -> Any:
        raise RuntimeError("no such thing\nsecond line")

    bad = setup("corner 2", ()).contender("bad", "ours", "forward", broken)
    found = timing.measure([contender("a"), bad, contender("b")], 0.02)
    assert "aabb" * 3 in "".join(order)  # each sample after an untimed call
    assert found[1].error == "RuntimeError: no such thing"
    assert len(found[0].samples) >= 5
    assert min(found[0].samples) >= 2e-3
    order.clear()
    timing.measure([contender("a"), contender("b")], 0.02, alternating=True)
    assert "".join(order).endswith("ab" * 3)


@pytest.mark.parametrize("does", ["forward", "inverse"])
def test_exponentials_are_beside_as_many_convolutions(does: str, monkeypatch: Any) -> None:
    calls = layers.pair(f"exponential {does}, zeros", (2, 3, 8, 8))
    ours, theirs = Mock(side_effect=maps.apply), Mock(side_effect=torch.nn.functional.conv2d)
    monkeypatch.setattr(maps, "apply", ours)
    monkeypatch.setattr(torch.nn.functional, "conv2d", theirs)
    for call in calls:
        call()
    assert 0 < ours.call_count == theirs.call_count
    assert all(bias is None for (_, _, bias, *_), _ in theirs.call_args_list)


@pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="needs llvmlite")
def test_calls_of_python_keep_their_limits(tmp_path: Path) -> None:
    found, _ = overhead.measure(True, tmp_path)
    assert {v.what: v.value for v in found if v.verdict != "pass" or v.value <= 0} == {}


GOOD = Group("inverse", "corner 2", (1, 2, 3, 3), ("inverse",), dtype="float32")


class Deadly(Group):
    """A group that ends the process that receives it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


@pytest.mark.slow
def test_what_fails_in_a_worker_costs_one_group() -> None:
    bad = replace(GOOD, map="no such map")
    found = list(run(Job((GOOD, bad, Deadly(**vars(GOOD)), GOOD), (NUMPY,), 1, 0.01)))
    rows = [rows[0] for _, rows in found]
    assert [any(row.passes) for row in rows] == [True, False, False, True]
    assert rows[1].passes == [[]]  # which keeps its place
    assert rows[1].error == "KeyError: 'no'"
    assert rows[2].error == "the process died"
    assert rows[0].residual is not None
    assert rows[0].residual < 1e-6


def test_a_pass_is_whole_when_its_last_job_is(monkeypatch: Any) -> None:
    groups = (replace(GOOD, thorough=True),)
    plan = runs.Schedule("", groups, (NUMPY,), (1, 2), (), False, 2, 0.01, 1.0)
    for jobs, whole in ((1, 0), (2, 1), (3, 1), (4, 2)):
        ran = [run(Job((), (), 1, 0.0)) for _ in range(jobs)]
        monkeypatch.setattr(runs, "run", Mock(side_effect=[*ran, KeyboardInterrupt]))
        found = runs.perform(plan, lambda *_: None, environment.begin(), ())
        assert (found.complete, found.passes) == (whole > 0, max(1, whole))


def test_a_limit_and_peers_are_of_their_own_shape() -> None:
    level, plane, other = (64, 12, 16, 16), (1, 1, 1024, 1024), (2, 12, 16, 16)
    for suite, name, wanted in (
        ("overhead", "emerging forward", [(other, None, ()), (level, 1.1, ())]),
        ("odd", "periodic 9", [(other, None, ()), (plane, 1.5, (SPECTRAL,))]),
    ):
        groups = select(suite, [shape for shape, *_ in wanted], ("float32",), False, name)
        assert [(g.shape, g.limit, g.peers) for g in groups] == wanted


HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.slow
def test_control_c_writes_the_report(tmp_path: Path) -> None:
    command = ("-m", "invconv", "benchmark", "inverse", "--library", "numpy", "--threads", "1")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    hearing = [sys.executable, "-c", HEARING, sys.executable, *command]
    process = subprocess.Popen(hearing, cwd=tmp_path, start_new_session=True, **pipes)
    while not (tmp_path / "invconv-benchmark").exists() and process.poll() is None:
        time.sleep(0.1)  # it is made when all is imported and the options are right
    time.sleep(5)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "stopped early" in out
    text = (tmp_path / "invconv-benchmark" / "result.json").read_text()
    assert json.loads(text)["complete"] is False


@pytest.mark.slow
def test_a_survey_repeats_its_calls_and_finds_planted_faults(tmp_path: Path) -> None:
    call, again = drawn(3, 4), drawn(3, 4)
    assert call.words == again.words != drawn(3, 5).words
    np.testing.assert_array_equal(call.x, again.x)
    results = {way: run() for way, run in survey.ways(call).items()}
    survey._require_agreement(call, results)
    with pytest.raises(ValueError, match="jax differs from numpy"):
        survey._require_agreement(call, results | {"jax": 1.001 * results["jax"]})
    assert main(["benchmark", "survey", "--seed=3", "--count=3", f"--out={tmp_path}"]) == 0
    document = json.loads((tmp_path / "survey.json").read_text())
    first, *others = document["calls"]
    assert len(others) == 2
    first |= {"seconds": {"numpy": [1e-3], "torch": [3.1e-3], "jax": [3.3e-3], "instead": [1e-3]}}
    document["calls"] = [first, {**others[0], "error": "ValueError: planted"}]
    found = {v.limit: v for v in survey.verdicts(document | {"calls": [first]})}
    assert found["PyTorch ÷ NumPy, all"].verdict == "pass"
    assert found["JAX ÷ NumPy, all"].verdict == "miss"
    assert found["JAX ÷ NumPy, all"].what.startswith("--seed 3 --only 0: ")
    assert [v.value for v in survey.verdicts(document)][-1] == 1
