"""Runs of benchmarks: workers that die, runs that are stopped, the command from end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from invconv_benchmarks.results import result
from invconv_benchmarks.results.messages import Sizes, Times
from invconv_benchmarks.runs import schedule
from invconv_benchmarks.runs.worker import Job, run
from invconv_benchmarks.suites.group import Group
from tests.libraries.gpus import without_gpu

NUMPY = ("numpy", "cpu")


class Deadly(Group):
    """A group that ends the process that receives it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


@pytest.mark.parametrize("memory", [False, pytest.param(True, marks=pytest.mark.slow)])
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


@pytest.mark.slow
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
        pytest.param(
            ["inverse", "--device", "cuda"],
            "--device: cuda needs an NVIDIA GPU with its driver, and PyTorch, JAX or CuPy built",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
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
