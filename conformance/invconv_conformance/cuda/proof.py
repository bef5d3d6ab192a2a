"""The proof as tests: the kernel's results, and the code that NVRTC makes of it.

Those marked ``long`` take the place of those marked ``brief`` unless ``--quick`` is asked for.
"""

# ruff: noqa: D103
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.kernels.cuda.compile import compile_text, library, source
from invconv.kernels.cuda.plan import Device
from invconv_conformance.cases.table import CASES
from invconv_conformance.cuda import solves
from invconv_conformance.cuda.solves import LARGE, Builder, CudaSolve, Mode, plan_for
from invconv_conformance.run import QUICK, QUICK_MORE

Build = Callable[[Mode], Builder]
_FEW = tuple(case for case in CASES if case.name in {*QUICK, *QUICK_MORE})
_EDGES = 24  # random jobs in which memory is watched
brief, long = pytest.mark.brief, pytest.mark.long
no_compiler = sys.platform != "linux" or shutil.which("g++") is None
needs_compiler = pytest.mark.skipif(no_compiler, reason="not run: no g++, or not Linux")
no_nvrtc = "not run: no NVRTC: pip install nvidia-cuda-nvrtc-cu12"


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function that makes builders of one folder."""
    return partial(Builder, tmp_path_factory.mktemp("kernels"))


def require(builder: Builder, groups: Iterable[Sequence[CudaSolve]]) -> None:
    """Run groups of jobs, and hold their results to the definition and to the CPU's kernel."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # they wait for compilers and programs
        found = [v for some in pool.map(lambda g: solves.judge(builder, g), groups) for v in some]
    compared = [v.same_bits for v in found if v.same_bits is not None]
    worst = max((v.error for v in found if not v.failure), default=0.0)
    print(
        f"{len(found)} solves, worst backward error {worst:.1f} eps, bits as the CPU's kernel: "
        f"{sum(compared)} of {len(compared)}, "
        f"{sum(v.substitutes for v in found)} substitute at the pixel",
        end=" ",
    )
    assert found
    assert not [v.wrong for v in found if v.wrong]


def test_every_case_has_a_plan_on_every_device() -> None:
    sizes, asked = (48, 64, 99, 163, 227), 0  # KiB
    for case in CASES:
        for conv, shared, itemsize in product(solves.factors(case.conv()), sizes, (4, 8)):
            device, asked = Device(90, shared * 1024, 132), asked + 1
            assert plan_for(conv, case.spatial_shape, itemsize, device), (case.name, shared)
    print(f"{asked} plans", end=" ")


JOBS: list[Any] = [
    pytest.param(lambda: solves.listed_jobs(_FEW, ("float32",)), marks=brief, id="few cases"),
    pytest.param(lambda: solves.random_jobs(8, seed=0), marks=brief, id="few random"),
    pytest.param(lambda: solves.listed_jobs(CASES), marks=long, id="all cases"),
    pytest.param(lambda: solves.random_jobs(150, seed=0), marks=long, id="random"),
    pytest.param(solves.many_channels, marks=long, id="many channels"),
]


@needs_compiler
@pytest.mark.parametrize("jobs", JOBS)
def test_results_are_those_of_the_definition_and_of_the_cpu_bit_for_bit(
    jobs: Callable[[], Iterator[CudaSolve]], build: Build
) -> None:
    require(build("values"), solves.grouped(jobs()))


@needs_compiler
@pytest.mark.parametrize("special", [np.nan, np.inf, 1e-42, -0.0])
def test_special_numbers_have_the_bits_that_the_cpu_gives_them(
    special: float, build: Build
) -> None:
    if not solves.comparable(4):
        pytest.skip("not run: the kernel of the CPU, with fused multiply-adds")
    for job in next(solves.small_jobs())[::4]:  # with D^-1 folded in, and without
        y = np.array(job.y) * np.float32(special if special == 1e-42 else 1)
        y[0, 0, 1, 1] = y[1, -1, 0, 2] = special
        assert solves.judge(build("values"), [replace(job, y=y)])[0].same_bits


@needs_compiler
def test_no_race(build: Build) -> None:
    require(build("races"), solves.small_jobs())


@needs_compiler
@pytest.mark.parametrize(
    "quick", [pytest.param(True, marks=brief), pytest.param(False, marks=long)]
)
def test_no_wrong_address_and_no_undefined_behaviour(quick: bool, build: Build) -> None:
    groups = list(solves.small_jobs())
    every = [*groups, *solves.grouped(solves.random_jobs(_EDGES, seed=1))]
    require(build("edges"), groups[:1] if quick else every)


@needs_compiler
@pytest.mark.parametrize("memory", ["shared", "counters"])
def test_memory_that_is_one_number_too_small_is_noticed(memory: str, build: Build) -> None:
    job = solves.in_volumes()[0]  # in which every unit has a counter that is used
    less = {"shared": job.launch.shared - job.y.itemsize, "counters": job.launch.counters - 1}
    launch = replace(job.launch, **{memory: less[memory]})  # type: ignore[arg-type]
    assert solves.judge(build("edges"), [replace(job, launch=launch)])[0].failure


REGISTERS = 65_536  # registers of a multiprocessor
DEVICES = Device(80, 163 * 1024, 108), LARGE, Device(100, 227 * 1024, 148)

Setting = tuple[int, int, int, Shape, str, int]
# images, channels, kernel size, grid, mask, bytes of a number
SETTINGS: tuple[Setting, ...] = (
    (100, 12, 2, (32, 32), "corner", 4),
    (64, 48, 2, (16, 16), "corner", 4),
    (100, 3, 2, (32, 32), "corner", 4),
    (1, 12, 3, (64, 64), "corner", 4),
    (64, 24, 2, (8, 8), "corner", 8),
    (16, 96, 3, (16, 16), "corner", 4),
    (1, 3, 3, (256, 256), "raster", 8),
    (8, 6, 2, (8, 8, 8), "corner", 4),
    (4, 1, 3, (6, 6, 6, 6), "raster", 8),
    (2, 512, 2, (4, 4), "corner", 4),
    (2, 512, 3, (4, 4), "corner", 8),
    (2, 4, 7, (40, 40), "raster", 4),
)

_FUNCTION = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@pytest.mark.skipif(library() is None, reason=no_nvrtc)
@pytest.mark.parametrize(
    ("setting", "device"),
    [
        pytest.param(s, d, marks=() if s in SETTINGS[:3] and d is LARGE else long)
        for s, d in product(SETTINGS, DEVICES)
    ],
)
def test_nothing_spills_and_blocks_fit_into_a_multiprocessor(
    setting: Setting, device: Device
) -> None:
    images, channels, size, shape, mask, itemsize = setting
    rng = np.random.default_rng(0)
    conv = ic.AutoregressiveConv.init(channels, size, len(shape), mask=mask, rng=rng)
    plan = plan_for(conv, shape, itemsize, device)
    assert plan is not None
    log = compile_text(source(plan.constants), device.architecture, verbose=True).log
    launches = {launch.kernel: launch for launch in (*plan.weigh(), plan.solve(images))}
    used = {found["name"]: found.groupdict() for found in _FUNCTION.finditer(log)}
    assert used.keys() == launches.keys(), log
    print(f"{used['solve']['registers']} registers, {plan.threads} threads", end=" ")
    for name, numbers in used.items():
        assert {numbers[memory] for memory in ("stack", "stores", "loads")} == {"0"}, name
        assert int(numbers["registers"]) * plan.threads <= REGISTERS, name
        assert launches[name].shared <= plan.device.shared, name
