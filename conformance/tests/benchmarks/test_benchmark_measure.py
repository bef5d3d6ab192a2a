"""What the benchmarks time computes what it should; runs end to end, interrupted too."""

from __future__ import annotations

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

import numpy as np
import pytest
import torch

from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks.contenders import ours, plain, references
from invconv_benchmarks.contenders.everyone import targets_of
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure import turns
from invconv_benchmarks.measure.contender import Contender
from invconv_benchmarks.results import result
from invconv_benchmarks.results.messages import Sizes, Times
from invconv_benchmarks.runs import schedule
from invconv_benchmarks.runs.worker import Job, run
from invconv_benchmarks.suites import maps
from invconv_benchmarks.suites.group import Group
from tests.libraries.gpus import without_gpu

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


class Deadly(Group):
    """A group that ends the process that receives it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


@pytest.mark.parametrize("memory", [False, True])
def test_a_worker_that_dies_costs_one_group(memory: bool) -> None:
    good = Group("inverse", "corner 2", (1, 2, 3, 3), ("inverse",), dtype="float32")
    groups = (good, Deadly(**vars(good)), good)
    job = Job(groups, (NUMPY,), 1, 0.01, memory)
    found = [m for m in run(job) if isinstance(m, Times | Sizes)]
    assert [bool(m.rows) for m in found] == [True, False, True]
    if not memory:
        assert found[1] == Times(groups[1], [], "the process died")


def test_what_fails_in_a_worker_costs_one_row() -> None:
    good = Group("inverse", "corner 2", (1, 2, 3, 3), ("inverse",), dtype="float32")
    bad = replace(good, does=("inverse", "matrix"), map="no such map")
    found = [m for m in run(Job((bad, good), (NUMPY,), 1, 0.01)) if isinstance(m, Times)]
    assert [bool(m.rows) for m in found] == [True, True]
    assert "expected the name of a map" in found[0].rows[0][1].error
    assert found[1].rows[0][1].samples


def test_stopping_keeps_what_was_measured(tmp_path: Path) -> None:
    groups = tuple(
        Group("inverse", "corner 2", (1, 2, n, n), ("forward", "inverse"), dtype="float32")
        for n in (3, 4, 5)
    )
    plan = schedule.Plan("command", groups, (NUMPY,), (1,), (), True, 2, 0.01, 60)

    def step(text: str, done: int, total: int) -> None:
        if done == 2 and text != "stopping":
            raise KeyboardInterrupt

    found = schedule.perform(plan, step)
    assert found.complete is False
    assert {r.shape for r in found.rows} == {(1, 2, 3, 3), (1, 2, 4, 4)}
    result.write(tmp_path / "result.json", found)
    assert result.read(tmp_path / "result.json").passes == 1


def command(*arguments: str, cwd: Path) -> list[str]:
    return [sys.executable, "-m", "invconv", "benchmark", *arguments]


def environment(home: Path) -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if k == "PYTHONPATH"}
    return keep | {"PATH": "/usr/bin:/bin", "COLUMNS": "80", "HOME": str(home)}


@pytest.mark.slow
def test_quick_end_to_end(tmp_path: Path) -> None:
    options = ("periodic", "--quick", "--library", "numpy,torch", "--shapes", "2x3x4x5")
    done = subprocess.run(
        command(*options, cwd=tmp_path),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "periodic: periodic 5, inverse" in done.stdout
    assert "…" not in done.stdout
    told = [line for line in done.stdout.splitlines() if "groups done" in line]
    assert [line.partition("; ")[2] for line in told] == [
        "pass 1, 1 thr",
        "memory",
        "pass 2, 1 thr",
    ]
    folder = tmp_path / "invconv-benchmark"
    found = result.read(folder / "result.json")
    assert found.complete
    mine = [r for r in found.rows if r.role == "ours"]
    assert {(r.library, r.does) for r in mine} == {
        (name, does) for name in ("numpy", "torch") for does in ("forward", "inverse", "unprepared")
    }
    assert all(r.memory is not None and r.ratio and r.ratio.value > 0 for r in mine)
    assert found.pools["1"]
    assert (folder / "index.html").read_text().startswith("<!doctype html>")
    again = subprocess.run(
        command("compare", str(folder), str(folder / "result.json"), cwd=tmp_path),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "6 of 6 ratios agree within the stated spread" in again.stdout


HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_control_c_writes_the_report(tmp_path: Path) -> None:
    argv = command("inverse", "--library", "numpy", "--threads", "1", cwd=tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", HEARING, *argv],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "int8"], "--dtype: expected some of float32, float64, got 'int8'"),
        (["--threads", "0"], "--threads: expected numbers from 1 to"),
        (["--shapes", "3x3"], "--shapes: expected B x C x H x W"),
        (["--library", "abacus"], "--library: expected some of"),
        pytest.param(["--library", "cupy"], "--library: CuPy: not", marks=without_gpu),
        (["--device", "tpu:7"], "--device: nothing that is installed here has 'tpu:7'"),
        (["--out", "nowhere/there"], "--out: expected a folder"),
        (["compare", "a.json"], "compare: expected two result files, got 1"),
        (["compare", "a.json", "b.json"], "a.json: there is no such file"),
        (["forward", "a.json"], "expected files only after compare"),
    ],
)
def test_wrong_options(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from invconv._cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
