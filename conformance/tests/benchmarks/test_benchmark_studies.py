"""What the small studies say of made-up numbers, and that they measure what they should."""

from __future__ import annotations

import functools
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invconv.kernels.cuda.plan import plan_of
from invconv_benchmarks.contenders import ours
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure import threads
from invconv_benchmarks.measure.neighbour import Neighbour
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.studies import cuda_model, first_solve, two_threads
from invconv_benchmarks.studies.two_threads import Found
from invconv_benchmarks.suites.group import Group

GROUP = Group("inverse", "corner 2", (1, 2, 3, 3), ("inverse",), dtype="float32")


def test_once_a_process_is_judged_by_all_processes() -> None:
    steps = first_solve.steps("float64")
    assert steps[0] == ("float64", 12)
    assert steps[-1] == ("float32", 12)
    taken = ([0.20, 0.01, 0.05, 0.2, 9], [0.25, 0.02, 0.12, 0.3, 9], [0.29, 0.03, 0.06, 0.4, 9])
    processes = [dict(zip(steps, seconds, strict=True)) for seconds in taken]
    found = list(first_solve.costs("float64", processes))
    assert [c.seconds for c in found[:2]] == [
        Interval(0.25, 0.20, 0.29),
        Interval(0.02, 0.01, 0.03),
    ]
    assert [c.bound for c in found] == [0.3, 0.1, 0.1, 0.1, None]
    verdicts = [c.seconds.verdict(c.bound) for c in found if c.bound is not None]
    assert verdicts == ["pass", "pass", "unclear", "miss"]
    shown = first_solve.table(found)
    assert [next(iter(column.cells)) for column in shown.columns] == [
        "float64, 12 channels: the first solve", "250", "200-290", "300", "pass",
    ]  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="needs llvmlite")
def test_a_first_solve_is_of_a_new_process() -> None:
    found = first_solve.in_a_process("float32")
    assert tuple(found) == first_solve.steps("float32")
    assert found["float32", 12] > 1e-3  # llvmlite alone takes longer to import


def test_an_import_is_of_a_new_process() -> None:
    assert 1e-3 < first_solve.imported() < 60


@pytest.mark.parametrize(
    ("seconds", "gain", "bound", "verdict"),
    [
        (2e-3, Interval(1.7, 1.61, 1.8), 1.6, "pass"),
        (2e-3, Interval(1.7, 1.5, 1.8), 1.6, "unclear"),
        (2e-3, Interval(1.2, 1.1, 1.3), 1.6, "miss"),
        (9e-4, Interval(1.0, 0.96, 1.04), 0.95, "pass"),
        (9e-4, Interval(0.98, 0.9, 1.1), 0.95, "unclear"),
        (9e-4, Interval(0.7, 0.6, 0.9), 0.95, "miss"),
    ],
)
def test_long_solves_must_gain_and_none_may_lose(
    seconds: float, gain: Interval, bound: float, verdict: str
) -> None:
    one = Found(GROUP, "numpy", seconds, gain)
    assert (one.bound, one.verdict) == (bound, verdict)
    long, others = two_threads.summary([one])
    assert f"1 {verdict}" in (long if bound == 1.6 else others)
    assert list(two_threads.table([one]).columns[-1].cells) == [verdict]


def _sleep(library: str, group: Group) -> Any:
    return functools.partial(time.sleep, 1e-3)


def test_a_neighbour_works_and_rests_as_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    path.touch()
    with Neighbour(_writes, path) as neighbour:
        sizes = []
        for _ in range(2):
            neighbour.go()
            time.sleep(0.02)
            neighbour.rest()
            sizes.append(path.stat().st_size)
            time.sleep(0.02)
            assert path.stat().st_size == sizes[-1]
    assert 1 < sizes[0] < sizes[1]
    with pytest.raises(RuntimeError, match="ended"), Neighbour(_breaks):
        pass


def _writes(path: Path) -> Any:
    def call() -> None:
        with path.open("a") as file:
            file.write(".")

    return call


def _breaks() -> Any:
    raise SystemExit(1)


def test_each_number_of_threads_is_set_as_its_turn_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def contenders(setup: Setup) -> list[Any]:
        def call() -> Any:
            time.sleep(4e-3 / threads.number("numpy"))
            return np.zeros(1)

        return [setup.contender("sleep", "ours", "inverse", lambda: call)]

    monkeypatch.setattr(ours, "contenders", contenders)
    monkeypatch.setattr(two_threads, "LIBRARIES", ("numpy",))
    monkeypatch.setattr(two_threads, "_solve", _sleep)
    before = threads.number("numpy")
    (found,) = two_threads.compare([GROUP.shape], ["float32"], 0.03)
    assert found.processes is not None
    assert found.seconds == pytest.approx(4e-3, rel=0.3)
    assert found.gain.value == pytest.approx(2, rel=0.3)
    assert threads.number("numpy") == before


def test_what_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def contenders(setup: Setup) -> list[Any]:
        return [setup.contender("broken", "ours", "inverse", lambda: [][0])]

    monkeypatch.setattr(ours, "contenders", contenders)
    monkeypatch.setattr(two_threads, "LIBRARIES", ("numpy",))
    with pytest.raises(RuntimeError, match="numpy, inverse: corner 2, 1x2x3x3, float32: IndexErr"):
        two_threads.compare([GROUP.shape], ["float32"], 0.01)


def test_the_cuda_plan_is_near_the_best_of_its_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for shape in ((100, 12, 32, 32), (64, 24, 8, 8), (1, 12, 16, 16)):
        found = cuda_model.modelled(shape, 2)
        assert found.best <= found.kernel <= 1.1 * found.best
        assert 0.7 < found.two_sums / found.kernel <= 1
        assert found.kernel < found.graph
    plan = plan_of(12, (64, 64), ((0, 1), (1, 0), (1, 1)), (1, 1), (1, 1), True, 4, cuda_model.H100)
    assert plan is not None
    launches = plan.in_bands(1, 1), plan.solve(1)
    slow, quick = (cuda_model.microseconds(plan, launch) for launch in launches)
    assert slow > 2 * quick
    monkeypatch.setattr(cuda_model, "SHAPES", ((64, 24, 8, 8),))
    assert cuda_model.main([]) == 0
    assert "nothing was measured" in capsys.readouterr().out
