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

from invconv_benchmarks.results import result
from invconv_benchmarks.runs import schedule
from invconv_benchmarks.runs.worker import Job, run
from invconv_benchmarks.suites.group import Group

NUMPY = ("numpy", "cpu")
GOOD = Group("inverse", "corner 2", (1, 2, 3, 3), ("inverse",), dtype="float32")


class Deadly(Group):
    """A group that ends the process that receives it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def test_what_fails_in_a_worker_costs_one_group() -> None:
    bad = replace(GOOD, map="no such map")
    found = list(run(Job((GOOD, bad, Deadly(**vars(GOOD)), GOOD), (NUMPY,), 1, 0.01)))
    rows = [rows[0] for _, rows in found]
    assert [bool(row.passes) for row in rows] == [True, False, False, True]
    assert rows[1].error == "KeyError: 'no'"
    assert rows[2].error == "the process died"
    assert rows[0].residual is not None
    assert rows[0].residual < 1e-6


def test_stopping_keeps_what_was_measured(tmp_path: Path) -> None:
    groups = tuple(replace(GOOD, shape=(1, 2, n, n)) for n in (3, 4, 5))
    plan = schedule.Plan("command", groups, (NUMPY,), (1,), (), True, 2, 0.01, 60)

    def step(text: str, done: int, total: int) -> None:
        if done == 2 and text != "stopping":
            raise KeyboardInterrupt

    found = schedule.perform(plan, step)
    assert found.complete is False
    assert {r.shape for r in found.rows} == {(1, 2, 3, 3), (1, 2, 4, 4)}
    result.write(tmp_path / "result.json", found)
    assert result.read(tmp_path / "result.json").passes == 1


HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.slow
def test_control_c_writes_the_report(tmp_path: Path) -> None:
    command = ("-m", "invconv", "benchmark", "inverse", "--library", "numpy", "--threads", "1")
    process = subprocess.Popen(
        [sys.executable, "-c", HEARING, sys.executable, *command],
        cwd=tmp_path,
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
