"""Registers, spills and shared memory that NVRTC gives the kernel, for devices that are absent."""

from __future__ import annotations

import re
from collections.abc import Iterator
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

_FUNCTION = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Report:
    """What the compiler says of a function."""

    function: str
    registers: int  # of a thread
    spilled: int  # bytes of a thread, the stack's too
    threads: int  # the most of a block
    shared: int  # bytes of a block, as planned
    limit: int  # and at most

    @property
    def right(self) -> bool:
        """Whether nothing spills and a block fits into a multiprocessor."""
        fits = self.registers * self.threads <= REGISTERS and self.shared <= self.limit
        return fits and self.spilled == 0


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
    plan, images = planned(setting, architecture), setting[0]
    log = compile_text(source(plan.constants), architecture, verbose=True).log
    launches = {launch.kernel: launch for launch in (*plan.weigh(), plan.solve(images))}
    found = list(_FUNCTION.finditer(log))
    assert {function["name"] for function in found} == set(launches), log
    for function in found:
        yield Report(
            function["name"],
            registers=int(function["registers"]),
            spilled=sum(int(function[name]) for name in ("stack", "stores", "loads")),
            threads=plan.layout.threads,
            shared=launches[function["name"]].shared,
            limit=plan.device.shared,
        )
