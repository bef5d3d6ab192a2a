"""The kernel of CUDA devices as custom calls of XLA: "weigh" computes weights, "solve" solves.

A call's handler has the handles of its kernels in its code. Its name is a hash of their source
constants, so that a program that XLA keeps on disk contains no address of a process.

`handler` writes the code of a call.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.stencil import CausalGrid
from invconv.kernels.cpu import machine
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cuda import driver
from invconv.kernels.cuda.arguments import Launch
from invconv.kernels.cuda.launch import Program, program_of

# positions of the kernels' arrays in a call: i is argument i, and -1 - i is result i
_ARRAYS = {
    "weigh": {"matrices": 0, "weights": -1},
    "solve": {"weights": 0, "y": 1, "x": -1, "counters": -2},
}
_KERNELS = {"weigh": ("fold", "decide"), "solve": ("solve",)}


@dataclass(frozen=True, eq=False)
class Call:
    """A custom call.

    "weigh" takes matrices (1 + T, C, C) and returns weights. "solve" takes weights and images, and
    returns images, and counters, which are working memory.
    """

    name: str  # the name of the handler
    code: machine.Code  # the handler
    launches: np.ndarray[Any, np.dtype[np.int32]]  # the attribute ``launches``
    results: int  # size of the weights, or of the counters; at least one


def common_program(
    channels: int, stencil: CausalGrid, itemsize: int, ordinals: tuple[int, ...]
) -> Program | None:
    """Return a program of `launch.program_of` that runs on each of some devices, or None.

    The result is None if a device has no program, if the devices' plans differ, or without devices.
    """
    common: Program | None = None
    for ordinal in ordinals:
        program = program_of(channels, stencil, itemsize, ordinal)
        if program is None or (common is not None and program.plan != common.plan):
            return None
        common = program
    return common


def weigh(program: Program) -> Call:
    """Return the call that computes weights from matrices."""
    return _call(program, "weigh", program.plan.weigh(), program.plan.weights)


def solve(program: Program, batch: int) -> Call:
    """Return the call that solves a batch of at least one image."""
    launch = program.plan.solve(batch)
    return _call(program, "solve", (launch,), max(1, launch.counters))


def _call(program: Program, task: str, launches: tuple[Launch, ...], results: int) -> Call:
    sizes = ((n.blocks, n.threads, n.shared, n.counters, *n.integers) for n in launches)
    numbers = np.asarray([i for row in sizes for i in row], np.int32)
    plan = program.plan
    description = repr((plan.constants, plan.device.architecture)).encode()
    name = f"invconv_cuda_{task}_{hashlib.sha256(description).hexdigest()[:20]}"
    kernels = tuple((kernel, program.kernels[kernel]) for kernel in _KERNELS[task])
    return Call(name, _handler(task, kernels), numbers, results)


@functools.lru_cache(maxsize=256)
def _handler(task: str, kernels: tuple[tuple[str, int], ...]) -> machine.Code:
    """Compile the handler of a call for the task "weigh" or "solve"."""
    from invconv.kernels.cuda.handler import DRIVER, write_handler

    addresses = {name: driver.address(name) for name in DRIVER}
    write = functools.partial(
        write_handler, addresses=addresses, kernels=dict(kernels), arrays=_ARRAYS[task]
    )
    return machine.compiled(host(), 4, write)
