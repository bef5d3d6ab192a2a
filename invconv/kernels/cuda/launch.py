"""Solves by the kernel of CUDA devices, for every library that has arrays on one.

A library's adapter gives the addresses of its arrays and its current stream (`DeviceOps`). All
memory is the library's. Nothing waits for the device and no value is read: a solve is one launch,
and before it at most one array of counters is set to zero. A CUDA graph may record it, even if
nothing was compiled before.

XLA has the same launches as custom calls. A call's handler (`handler`) has the handles of its
kernels in its code. Its name is a hash of their source constants, so that a program that XLA keeps
on disk contains no address of a process.

Not yet run on a GPU. `plan` describes the launches.
"""

import functools
import hashlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, device, namespace
from invconv.arrays.stencil import Sweep
from invconv.kernels import primitives
from invconv.kernels.cpu import machine
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cuda import compile as compiler
from invconv.kernels.cuda import driver
from invconv.kernels.cuda.plan import POINTERS, Constants, Device, Launch, LaunchPlan, plan_of


@dataclass(frozen=True)
class DeviceOps:
    """Functions on a library's arrays for a launch."""

    # (x): the number of the CUDA device that holds ``x``; None if no CUDA device does
    ordinal: Callable[[Array], int | None]
    address: Callable[[Array], int]  # (x): the address of a contiguous array's numbers
    stream: Callable[[Array], int]  # (x): the handle of the current stream of the device of ``x``
    contiguous: Callable[[Array], Array]  # (x): ``x``, or a contiguous copy


@dataclass(frozen=True, eq=False)
class DeviceProgram:
    """A plan with its code, loaded on a device."""

    plan: LaunchPlan
    ordinal: int  # the number of the device
    kernels: dict[str, int]  # handles of the kernels, by name

    def queue(self, launch: Launch, stream: int, **addresses: int) -> None:
        pointers = tuple(addresses[name] for name in POINTERS[launch.kernel])
        sizes, kernel = (launch.blocks, launch.threads, launch.shared), self.kernels[launch.kernel]
        with driver.current(self.ordinal):
            driver.launch(kernel, sizes, stream, pointers, launch.struct)


@functools.lru_cache(maxsize=256)
def _solve_launch(program: DeviceProgram, batch: int) -> Launch:
    return program.plan.solve(batch)


_ONE_THREAD = threading.RLock()  # loads code: each kernel has one handle, which XLA keeps


@functools.lru_cache(maxsize=256)
def program_of(channels: int, sweep: Sweep, itemsize: int, ordinal: int) -> DeviceProgram | None:
    """Return the loaded program of a causal stencil; if none runs, warn why, and return None."""
    try:
        with _ONE_THREAD, driver.loading():
            return _program(channels, sweep, itemsize, ordinal)
    except (driver.DriverError, compiler.CompileError) as error:
        warnings.warn(f"no CUDA kernel, wavefronts solve: {error}", RuntimeWarning, stacklevel=2)
        return None


def _program(channels: int, sweep: Sweep, itemsize: int, ordinal: int) -> DeviceProgram | None:
    asked = driver.MAJOR, driver.MINOR, driver.SHARED, driver.PROCESSORS
    major, minor, shared, processors = (driver.attribute(n, ordinal) for n in asked)
    described = Device(10 * major + minor, shared, processors)
    plan = plan_of(channels, sweep, itemsize, described)
    if plan is None:
        return None
    kernels = _loaded(plan.constants, described.architecture)
    with driver.current(ordinal):
        driver.allow_shared(kernels["solve"], described.shared, ordinal)
        for kernel in kernels.values():
            driver.put_on_device(kernel)
    return DeviceProgram(plan, ordinal, kernels)


@functools.cache  # code is never unloaded
def _loaded(constants: Constants, architecture: int) -> dict[str, int]:
    text, version = compiler.source(constants), driver.version()
    code = compiler.compile_text(text, architecture, driver=version)
    return driver.load(code.image, tuple(POINTERS))


@dataclass(frozen=True, eq=False)
class DeviceSolve:
    """The map y -> x, both (B, C, *shape), that solves a causal stencil on its device."""

    program: DeviceProgram
    weights: Array  # shape (plan.weights,)
    shape: Shape  # the shape of one image, (C, *grid)
    ops: DeviceOps
    plan: ClassVar = primitives.Plan(  # only the device knows the way at the pixel
        "CUDA kernel", "cached inverse where accurate, else triangular solve"
    )

    def __call__(self, y: Array) -> Array:
        actual = tuple(y.shape[1:]), y.dtype, device(y)
        wanted = self.shape, self.weights.dtype, device(self.weights)
        if actual != wanted:  # the kernel itself checks no shape
            expected, got = ("{} of {} on {}".format(*triple) for triple in (wanted, actual))
            raise ValueError(f"y: expected images {expected}, got {got}")
        if 0 in y.shape:
            return y
        batch, most, xp = y.shape[0], self.program.plan.most_images, namespace(y)
        if batch > most:
            parts = [y[first : first + most, ...] for first in range(0, batch, most)]
            return xp.concat([self(part) for part in parts])
        y = self.ops.contiguous(y)
        x = xp.empty(y.shape, dtype=y.dtype, device=device(y))
        launch, address = _solve_launch(self.program, batch), self.ops.address
        count = launch.counters
        counters = xp.zeros((count,), dtype=xp.int32, device=device(y)) if count else None
        self.program.queue(
            launch,
            self.ops.stream(y),
            y=address(y),
            x=address(x),
            weights=address(self.weights),
            counters=0 if counters is None else address(counters),
        )
        return x


def device_solve(matrices: Array, sweep: Sweep, ops: DeviceOps) -> DeviceSolve | None:
    """Factor a causal stencil, D and taps (1 + T, C, C); None if wavefronts must solve."""
    ordinal, xp = ops.ordinal(matrices), namespace(matrices)
    if ordinal is None or matrices.dtype not in (xp.float32, xp.float64):
        return None
    channels, itemsize = matrices.shape[-1], matrices.dtype.itemsize
    program = program_of(channels, sweep, itemsize, ordinal)
    if program is None:
        return None
    matrices = ops.contiguous(matrices)
    weights = xp.empty((program.plan.weights,), dtype=matrices.dtype, device=device(matrices))
    addresses = {"matrices": ops.address(matrices), "weights": ops.address(weights)}
    for launch in program.plan.weigh():
        program.queue(launch, ops.stream(matrices), **addresses)
    return DeviceSolve(program, weights, (channels, *sweep.shape), ops)


# positions of the kernels' arrays in a call: i is argument i, and -1 - i is result i
_ARRAYS = {
    "weigh": {"matrices": 0, "weights": -1},
    "solve": {"weights": 0, "y": 1, "x": -1, "counters": -2},
}


@dataclass(frozen=True, eq=False)
class DeviceCall:
    """A custom call: "weigh" takes matrices (1 + T, C, C) and returns weights.

    "solve" takes weights and images, and returns images, and counters: working memory.
    """

    name: str  # the name of the handler
    code: machine.Code  # the handler
    launches: np.ndarray[Any, np.dtype[np.int32]]  # the attribute ``launches``
    counters: int  # number of counters; at least one


def custom_call(program: DeviceProgram, task: str, launches: tuple[Launch, ...]) -> DeviceCall:
    """Return the call that queues the launches of a task, "weigh" or "solve"."""
    rows = [(n.blocks, n.threads, n.shared, n.counters, *n.integers) for n in launches]
    numbers, plan = np.ravel(np.asarray(rows, np.int32)), program.plan
    description = repr((plan.constants, plan.device.architecture)).encode()
    name = f"invconv_cuda_{task}_{hashlib.sha256(description).hexdigest()[:20]}"
    kernels = tuple((n.kernel, program.kernels[n.kernel]) for n in launches)
    counters = max(1, *(n.counters for n in launches))
    return DeviceCall(name, _handler(task, kernels), numbers, counters)


@functools.lru_cache(maxsize=256)
def _handler(task: str, kernels: tuple[tuple[str, int], ...]) -> machine.Code:
    """Compile the handler of a call for the task "weigh" or "solve"."""
    from invconv.kernels.cuda.handler import DRIVER, write_handler

    addresses = {name: driver.address(name) for name in DRIVER}
    write = functools.partial(
        write_handler, addresses=addresses, kernels=dict(kernels), arrays=_ARRAYS[task]
    )
    return machine.compiled(host(), 4, write)
