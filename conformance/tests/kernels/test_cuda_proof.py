"""The proof of the CUDA kernel can fail: wrong numbers, races and waits for ever are seen.

The whole proof is ``python -m invconv_conformance.cuda``, a step of ``.ci/run``.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from invconv.kernels.cuda.source import sources
from invconv_conformance.cuda import command, draws, faults, plans, values
from invconv_conformance.cuda.build import Builder

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="not run: no g++")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def test_every_line_on_which_threads_wait_has_a_fault() -> None:
    assert faults.unspoilt() == []
    planted = list(faults.planted())
    assert len({(f.file, f.line, f.what) for f in planted}) == len(planted) >= 24
    barriers = sum(text.count("__syncthreads()") for text in sources().values())
    assert sum(fault.what == "no barrier" for fault in planted) == barriers >= 8


def test_every_case_has_a_plan() -> None:
    asked, wrong = plans.without_plan()
    assert asked > 500
    assert wrong == []


@needs_compiler
def test_wrong_numbers_are_seen(folder: Path) -> None:
    """Without the CPU's kernel to compare with, the definition shows them."""
    builder = Builder(folder, "values")
    with ThreadPoolExecutor(1) as workers:
        (sound,) = values.verdicts(builder, next(draws.small_jobs())[:1], workers)
    assert sound.right
    assert sound.error < 10
    assert sound.same_bits in (True, None)
    assert not dataclasses.replace(sound, error=1e3, same_bits=None).right
    assert not dataclasses.replace(sound, error=float("nan")).right
    assert not dataclasses.replace(sound, same_bits=False).right
    assert not dataclasses.replace(sound, failure="a race").right
    x = np.ones_like(sound.job.y)
    assert values.backward_error(sound.job.conv, x, sound.job.y) > 1e3


@needs_compiler
@pytest.mark.parametrize("special", [np.nan, np.inf, 1e-42, -0.0])
def test_special_numbers_have_the_bits_that_the_cpu_gives_them(
    folder: Path, special: float
) -> None:
    if not values.comparable(4):
        pytest.skip("not run: the kernel of the CPU, with fused multiply-adds")
    builder = Builder(folder, "values")
    for job in next(draws.small_jobs())[::4]:  # D^-1 folded in, and not
        y = np.array(job.y)
        y[0, 0, 1, 1] = y[1, -1, 0, 2] = special
        changed_job = dataclasses.replace(job, y=y * np.float32(special if special == 1e-42 else 1))
        assert values.judge(builder, [changed_job])[0].same_bits


def test_without_a_compiler_it_says_what_was_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(command, "library", lambda: None)
    assert command.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    for check in ("values", "sanitizers", "edges", "faults"):
        assert f"{check}: not run: no g++" in printed
    assert "compiler: not run: no NVRTC" in printed
    assert "0 checks failed" in printed


def test_what_is_found_wrong_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(command, "library", lambda: None)
    monkeypatch.setattr(plans, "EXPECTED", frozenset({"corner-k3"}))
    assert command.main(["--quick"]) == 1
