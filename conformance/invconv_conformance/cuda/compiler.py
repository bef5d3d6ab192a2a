"""Registers, spills and shared memory that NVRTC gives the kernel, for devices that are absent."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.kernels.cuda.compile import compile_text
from invconv.kernels.cuda.plan import SHARED_MEMORY, Device, Plan
from invconv.kernels.cuda.source import source
from invconv_conformance.cuda.jobs import plan_for

ARCHITECTURES = (80, 90, 100)
REGISTERS = 65_536  # of a multiprocessor
_PROCESSORS = {80: 108, 90: 132, 100: 148}

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

_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True)
class Report:
    """What the compiler says of a function.

    Attributes
    ----------
    name : str
        Of the setting.
    architecture : int
    function : str
    registers, spilled, stack : int
        Of a thread: how many, and bytes.
    threads, shared, limit : int
        Of a block: the most threads, and bytes of shared memory as planned and at most.
    """

    name: str
    architecture: int
    function: str
    registers: int
    spilled: int
    stack: int
    threads: int
    shared: int
    limit: int

    @property
    def right(self) -> bool:
        """Whether nothing spills and a block fits into a multiprocessor."""
        fits = self.registers * self.threads <= REGISTERS and self.shared <= self.limit
        return fits and self.spilled == 0 and self.stack == 0


def reports(workers: Executor, *, quick: bool) -> Iterator[Report]:
    """Compile settings for architectures, and yield what is said of each function."""
    settings = SETTINGS[:3] if quick else SETTINGS
    pairs = itertools.product(settings, ARCHITECTURES[1:2] if quick else ARCHITECTURES)
    for found in workers.map(lambda pair: list(report(*pair)), pairs):
        yield from found


def planned(setting: Setting, architecture: int) -> Plan:
    """Return the plan of a setting."""
    _, channels, size, shape, mask, itemsize = setting
    rng = np.random.default_rng(0)
    conv = ic.AutoregressiveConv.init(channels, size, len(shape), mask=mask, rng=rng)
    device = Device(architecture, SHARED_MEMORY[architecture], _PROCESSORS[architecture])
    plan = plan_for(conv, shape, itemsize, device)
    assert plan is not None
    return plan


def report(setting: Setting, architecture: int) -> Iterator[Report]:
    """Compile a setting, and yield what is said of each function."""
    plan = planned(setting, architecture)
    log = compile_text(source(plan.constants), architecture, verbose=True).log
    return read(log, setting, plan)


def read(log: str, setting: Setting, plan: Plan) -> Iterator[Report]:
    """Yield what a compiler's log says of each function."""
    images, channels, size, shape, mask, itemsize = setting
    grid = "×".join(map(str, (images, channels, *shape)))
    launches = {launch.kernel: launch for launch in (*plan.weigh(), plan.solve(images))}
    for part in re.split(r"(?=Compiling entry function)", log)[1:]:
        function, frame, used = (p.search(part) for p in (_FUNCTION, _FRAME, _USED))
        assert function is not None, part
        assert frame is not None, part
        assert used is not None, part
        stack, stores, loads = map(int, frame.groups())
        yield Report(
            name=f"{grid} {mask} {size} float{8 * itemsize}",
            architecture=plan.device.architecture,
            function=function[1],
            registers=int(used[1]),
            spilled=stores + loads,
            stack=stack,
            threads=plan.layout.threads,
            shared=launches[function[1]].shared,
            limit=plan.device.shared,
        )
