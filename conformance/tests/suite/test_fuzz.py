"""A small fuzz of files and calls, its corpus, and the watch over its workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import invconv as ic
from invconv.extend import Pointwise
from invconv.files.description import describe
from invconv.operators.base.register import own_operators
from invconv_conformance.fuzz import calls, corpus, files
from invconv_conformance.fuzz.__main__ import main
from invconv_conformance.fuzz.call import Arr, Call, Op
from invconv_conformance.fuzz.engine import Batch, batches, run

KERNEL = Arr("numpy", "float64", (1, 1, 2), "near identity", 0)
IMAGE = Arr("numpy", "float64", (2, 1, 5), "normal", 1)
CONV = Op("AutoregressiveConv", (("kernel", KERNEL),))

MISBEHAVES = """
import os, time
from invconv_conformance.fuzz.engine import Tally

def perform(batch, begin):
    begin(f"item {batch.first}")
    if batch.first == 0:
        os._exit(7)
    if batch.first == 1:
        time.sleep(60)
    tally = Tally()
    tally.ends["done"] += 1
    return tally
"""


@pytest.mark.parametrize("count", [400, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_read(count: int) -> None:
    tally = files.perform(Batch(files.perform, 20261125, 0, count), lambda text: None)
    assert tally.failures == []
    assert set(tally.ends) == {"InvalidFileError", "an operator"}
    assert tally.ends["an operator"] >= count / 33


@pytest.mark.parametrize("count", [400, pytest.param(4000, marks=pytest.mark.slow)])
def test_random_calls_end_as_documented(count: int) -> None:
    tally = calls.perform(Batch(calls.perform, 20261125, 0, count), lambda text: None)
    assert tally.failures == []
    assert tally.ends.total() >= count
    kinds = {"a result", "ValueError", "TypeError", "SingularConvError"}
    assert kinds <= set(tally.ends)
    assert tally.ends["a result"] >= count / 4


def test_the_corpus_is_what_the_command_writes() -> None:
    found = sorted(corpus.FOLDER.rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in found) < 100_000
    convs = corpus.operators()
    assert len(found) == 2 * len(convs)
    missing = set(own_operators()) - {type(conv) for conv in convs.values()}
    assert all(issubclass(cls, Pointwise) for cls in missing)  # its file is like another's
    for path in found:
        name = path.stem.removesuffix("-float16").removesuffix("-float32").removesuffix("-bfloat16")
        conv = ic.load(path, like=np.empty(0))
        tolerance = 1e-12 if name == path.stem else 1e-2
        ours, theirs = convs[name]._arrays(), conv._arrays()
        assert describe(conv, {}) == describe(convs[name], {})
        assert all(np.allclose(a, theirs[n], atol=tolerance) for n, a in ours.items())


def test_a_call_that_is_not_documented_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(CONV, "forward", (("x", IMAGE),))
    assert calls.judge(call) == "a result"
    for wrong, told in (
        (lambda conv, x: 1 / 0, "ZeroDivisionError"),
        (lambda conv, x: np.linalg.inv(np.zeros((2, 2))), "LinAlgError"),
        (lambda conv, x: np.zeros(3) @ np.zeros(2), "ValueError: matmul"),
        (lambda conv, x: np.nan * x, "silence"),
        (lambda conv, x: x[:1], r"of \(2, 1, 5\) float64 numpy made \(1, 1, 5\)"),
        (lambda conv, x: x.astype(np.float32), "made .* float32"),
    ):
        monkeypatch.setattr(ic.AutoregressiveConv, "forward", wrong)
        if told == "silence":  # the reference must not share the fault
            monkeypatch.setattr(calls, "changed", lambda call, change: Call("invconv", "x", ()))
        with pytest.raises(calls.Undocumented, match=told):
            calls.judge(call)


def test_workers_that_die_or_hang_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "misbehaves.py").write_text(MISBEHAVES)
    monkeypatch.syspath_prepend(str(tmp_path))
    import misbehaves  # type: ignore[import-not-found]

    todo = batches(misbehaves.perform, 0, 4, 1)
    ends = {batch.first: tally for batch, tally in run(todo, workers=2, longest=1.0)}
    assert ends[0].failures == ["item 0 ended the process with 7"]
    assert ends[1].failures == ["item 1 took more than 1 s"]
    assert ends[2].ends["done"] == ends[3].ends["done"] == 1


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["files", "--count", "100", "--workers", "2"]) == 0
    out = capsys.readouterr().out
    assert "InvalidFileError" in out
    assert "100  in" in out
    assert "0 failed" in out
