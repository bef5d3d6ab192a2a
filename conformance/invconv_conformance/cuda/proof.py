"""The proof as tests: what the kernel computes, that faults in it show, and what NVRTC makes of it.

Those marked ``long`` take the place of those marked ``brief`` unless ``--quick`` is asked for.
"""

# ruff: noqa: D103
from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from invconv.kernels.cuda.compile import library
from invconv_conformance.cases.quick import QUICK, QUICK_MORE
from invconv_conformance.cases.table import CASES
from invconv_conformance.cuda import compiler, draws, faults, values
from invconv_conformance.cuda.build import Builder, Mode
from invconv_conformance.cuda.jobs import Job

Build = Callable[[Mode], Builder]
_FEW = tuple(case for case in CASES if case.name in {*QUICK, *QUICK_MORE})
_EDGES = 24  # random jobs in which memory is watched
brief, long = pytest.mark.brief, pytest.mark.long
no_compiler = sys.platform != "linux" or shutil.which("g++") is None
needs_compiler = pytest.mark.skipif(no_compiler, reason="not run: no g++, or not Linux")
no_nvrtc = "not run: no NVRTC: pip install nvidia-cuda-nvrtc-cu12"


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return what makes builders of one folder."""
    folder = tmp_path_factory.mktemp("kernels")
    return lambda mode: Builder(folder, mode)


@pytest.fixture(scope="session")
def workers() -> Iterator[Executor]:
    """Give a thread for each core: they wait for compilers and programs."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield pool


def require(builder: Builder, groups: Iterable[Sequence[Job]], workers: Executor) -> None:
    """Run groups of jobs, and hold their results to the definition and to the CPU's kernel."""
    found = [v for some in workers.map(lambda g: values.judge(builder, g), groups) for v in some]
    compared = [v.same_bits for v in found if v.same_bits is not None]
    worst = max((v.error for v in found if not v.failure), default=0.0)
    print(
        f"{len(found)} solves, worst backward error {worst:.1f} eps, bits as the CPU's kernel: "
        f"{sum(compared)} of {len(compared)}, "
        f"{sum(v.substitutes for v in found)} substitute at the pixel",
        end=" ",
    )
    assert found
    assert not [str(v) for v in found if not v.right]


def test_every_case_has_a_plan_on_every_device() -> None:
    asked, lacking = draws.without_plan()
    print(f"{asked} plans", end=" ")
    assert not lacking


JOBS: list[Any] = [
    pytest.param(lambda: draws.listed_jobs(_FEW, ("float32",)), marks=brief, id="few cases"),
    pytest.param(lambda: draws.random_jobs(8, seed=0), marks=brief, id="few random"),
    pytest.param(lambda: draws.listed_jobs(CASES), marks=long, id="all cases"),
    pytest.param(lambda: draws.random_jobs(150, seed=0), marks=long, id="random"),
    pytest.param(draws.many_channels, marks=long, id="many channels"),
]


@needs_compiler
@pytest.mark.parametrize("jobs", JOBS)
def test_results_are_those_of_the_definition_and_of_the_cpu_bit_for_bit(
    jobs: Callable[[], Iterator[Job]], build: Build, workers: Executor
) -> None:
    require(build("values"), values.grouped(jobs()), workers)


@needs_compiler
@pytest.mark.parametrize("special", [np.nan, np.inf, 1e-42, -0.0])
def test_special_numbers_have_the_bits_that_the_cpu_gives_them(
    special: float, build: Build
) -> None:
    if not values.comparable(4):
        pytest.skip("not run: the kernel of the CPU, with fused multiply-adds")
    for job in next(draws.small_jobs())[::4]:  # D^-1 folded in, and not
        y = np.array(job.y) * np.float32(special if special == 1e-42 else 1)
        y[0, 0, 1, 1] = y[1, -1, 0, 2] = special
        assert values.judge(build("values"), [replace(job, y=y)])[0].same_bits


@needs_compiler
def test_no_race(build: Build, workers: Executor) -> None:
    require(build("races"), draws.small_jobs(), workers)


def _watched(quick: bool) -> list[list[Job]]:
    groups = list(draws.small_jobs())
    few = [j for j in draws.random_jobs(_EDGES, seed=1) if j.conv.channels <= 9]  # real threads
    return groups[:1] if quick else [*groups, *values.grouped(few)]


@needs_compiler
@pytest.mark.parametrize(
    "quick", [pytest.param(True, marks=brief), pytest.param(False, marks=long)]
)
def test_no_wrong_address_and_no_undefined_behaviour(
    quick: bool, build: Build, workers: Executor
) -> None:
    require(build("edges"), _watched(quick), workers)


@needs_compiler
@pytest.mark.parametrize("memory", ["shared", "counters"])
def test_memory_that_is_one_number_too_small_is_noticed(memory: str, build: Build) -> None:
    job = draws.in_volumes()[0]  # in which every unit has a counter that is used
    less = {"shared": job.launch.shared - job.y.itemsize, "counters": job.launch.counters - 1}
    launch = replace(job.launch, **{memory: less[memory]})  # type: ignore[arg-type]
    assert values.judge(build("edges"), [replace(job, launch=launch)])[0].failure


def test_every_line_on_which_threads_wait_has_a_fault() -> None:
    assert not faults.unspoilt()


@needs_compiler
def test_faults_in_the_source_are_caught(build: Build, workers: Executor) -> None:
    planes = draws.in_volumes()
    pairs = [(build("races"), planes), (build("values"), planes)]
    pairs += [(build("races"), group) for group in draws.small_jobs()]
    watchers = [faults.Watcher(*pair) for pair in pairs]
    planted = list(faults.planted())
    found = list(workers.map(lambda fault: faults.caught(fault, watchers), planted))
    for fault, how in zip(planted, found, strict=True):
        print(f"\n  {fault.file}:{fault.line}: {fault.what}: {how or 'not caught'}", end="")
    print(f"\n{len(found)} planted, {len(found) - found.count(None)} caught", end=" ")
    assert None not in found


SETTINGS: list[Any] = [
    pytest.param(s, a, marks=() if s in compiler.SETTINGS[:3] and a == 90 else long)
    for s, a in product(compiler.SETTINGS, compiler.ARCHITECTURES)
]


@pytest.mark.skipif(library() is None, reason=no_nvrtc)
@pytest.mark.parametrize(("setting", "architecture"), SETTINGS)
def test_nothing_spills_and_blocks_fit_into_a_multiprocessor(
    setting: compiler.Setting, architecture: int
) -> None:
    found = list(compiler.report(setting, architecture))
    solve = next(r for r in found if r.function == "solve")
    print(f"{solve.registers} registers, {solve.threads} threads", end=" ")
    assert not [r for r in found if not r.right]
