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
from invconv_conformance.cuda.faults import Fault, Watcher

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="not run: no g++")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def changed(old: str, new: str) -> Fault:
    """Return a change of the one place where a text is."""
    ((file, text),) = ((f, t) for f, t in sources().items() if old in t)
    assert text.count(old) == 1
    return Fault("another text", file, 0, sources() | {file: text.replace(old, new)})


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


CHANGES = {
    "sums in another order": ("sum[r][(k + v) % SUMS] = fma(", "sum[r][0 * (k + v)] = fma("),
    "D^-1 where it is not accurate": ("accurate ? 0 : 1", "accurate ? 1 : 0"),
    "a substitution that stops early": ("o > c : o < c", "o > c + 1 : o < c - 1"),
    "columns of the rows above": ("const int j = d + SLOPE * a", "const int j = d + a + SLOPE * a"),
    "a row that is not written at once": ("if (i >= b.kept)", "if (i > b.kept)"),
    "a row of a residue class": ("residue / g.dilation[3]", "residue % g.dilation[3]"),
    "a tap of an earlier plane": ("b.weights + (1 + t) * SQUARE", "b.weights + t * SQUARE"),
}


@needs_compiler
@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_arithmetic_are_seen(folder: Path, change: str) -> None:
    fault = changed(*CHANGES[change])
    builder = Builder(folder, "values")
    looks = (Watcher.of(builder, group).look(fault) for group in draws.small_jobs())
    assert any(looks)


@needs_compiler
@pytest.mark.slow  # sanitizers; the whole proof plants these two and the others
def test_a_race_and_a_wait_for_ever_are_seen(folder: Path) -> None:
    watcher = Watcher.of(Builder(folder, "races"), next(draws.small_jobs()))
    named = {fault.what: fault for fault in faults.planted()}
    assert watcher.look(named["release: no order"]) == "a race"
    assert watcher.look(named["no ticket"]) == "waits for ever"
    alone = dataclasses.replace(watcher.jobs[0], resident=1)  # one block at a time finishes too
    assert Watcher.of(watcher.builder, [alone]).sound[0].x.tobytes() == watcher.sound[0].x.tobytes()


@needs_compiler
def test_memory_that_is_too_small_is_seen(folder: Path) -> None:
    builder = Builder(folder, "edges")
    job = draws.in_volumes()[0]
    assert values.judge(builder, [job])[0].right
    for smaller in faults.too_small(job).values():
        assert "an error in memory" in values.judge(builder, [smaller])[0].failure


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
