"""Solves of causal stencils by the compiled kernel, on arrays in host memory.

x[p] = D^-1 (y[p] - sum over t of K_t x[p - o_t])
"""

import ctypes
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invconv.arrays.stencil import Sweep
from invconv.kernels.cpu import costs, machine, threads
from invconv.kernels.cpu.assembly import Program, Way, best_parts, best_program, program
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.geometry import Geometry, Shape, geometry_of
from invconv.kernels.cpu.program import Floats, addresses
from invconv.kernels.primitives import Plan

Buffer = tuple[int, Floats]


@dataclass(frozen=True, eq=False)
class CompiledSolve:
    """A factored causal stencil on a grid: its geometry, and weights for the kernel."""

    geometry: Geometry
    target: Target
    matrices: Floats  # (1 + T, C, C): D, and those of the taps
    images: tuple[int, int, int]  # for `require_images`: channels, pixels and bytes a number
    # the weights in the layouts that were needed, by the channels of a block
    _weights: dict[int, Floats] = field(default_factory=dict, init=False)
    # the last batch and number of threads, and their runs
    _last: Any = field(default=(None, None), init=False)

    def weights(self, plan: Program) -> Floats:
        """Return the weights for a program, in the layout of `invconv.kernels.cpu.weights`."""
        known = self._weights.get(plan.header.block)
        if known is None:
            g, matrices = self.geometry, self.matrices
            known = np.zeros(plan.weights, matrices.dtype)
            prepare = machine.prepare(self.target, g.itemsize)
            arrays = (a.__array_interface__["data"][0] for a in (matrices, known))
            in_buffers(g.scratch * g.itemsize, 1, prepare.call, (*arrays, plan.address))
            # of threads that begin at the same time the first one's stay: others know addresses
            known = self._weights.setdefault(plan.header.block, known)
        return known

    def layouts(self) -> list[Floats]:
        """Return the weights for all ways but "channels", and for "channels"."""
        more: list[Way] = ["channels"] if self.geometry.channels > 1 else []
        return [self.weights(program(self.geometry, way)) for way in ("images", *more)]

    @property
    def plan(self) -> Plan:
        g, first = self.geometry, best_program(self.geometry, 1, 1)
        corner = "triangular solve" if self.weights(first)[first.flag] else "cached inverse"
        vectors = f"{g.lanes} numbers of {8 * g.itemsize} bits"
        return Plan("compiled kernel", at_the_pixel=corner, vectors=vectors)

    def run(self, y: int, x: int, batch: int, workers: int, *keeps: object) -> None:
        """Solve images at the address ``y``, and put the results at ``x``.

        The addresses are of contiguous arrays (batch, C, *shape) of the stencil's dtype, which
        ``keeps`` holds while another thread may still be at work. At most so many ``workers``
        solve: one thread solves a few images.
        """
        key, found = self._last
        if key != (batch, workers):  # a batch like the last one is divided alike
            runs, most, size = _runs(self.geometry, self.target, batch, workers)
            weights = [self.weights(run.plan).__array_interface__ for run in runs]
            found = runs, [w["data"][0] for w in weights], most, size
            vars(self).update(_last=((batch, workers), found))
        runs, places, most, size = found
        states = [run.shared() for run in runs]

        def work(z: int) -> None:
            for run, place, state in zip(runs, places, states, strict=True):
                given = y + run.start, x + run.start, place, run.plan.address
                run.solve.call(*given, ctypes.addressof(state), z, run.sums.address, run.batch)

        in_buffers(size, most, work, keeps=(self, states, keeps))


def require_images(expected: tuple[int, int, int], shape: Shape, itemsize: int) -> None:
    """Raise ValueError unless images are as expected: the kernels themselves check no shape."""
    got = shape[1], math.prod(shape[2:]), itemsize
    if got != expected:
        channels, pixels, size = expected
        raise ValueError(
            f"y: expected {channels} channels of {pixels} pixels of {size} bytes, "
            f"got {got[0]} of {got[1]} of {got[2]}"
        )


def compiled_solve(matrices: Floats, sweep: Sweep, target: Target | None = None) -> CompiledSolve:
    """Factor a causal stencil on a grid.

    ``matrices`` (1 + T, C, C), in float32 or float64, are D and then those of the taps; they are
    not copied, and must not change. The target is this processor unless given.
    """
    matrices, target = np.ascontiguousarray(matrices), target or host()
    g = geometry_of(matrices.shape[1], sweep, matrices.dtype.itemsize, target)
    return CompiledSolve(g, target, matrices, (g.channels, g.pixels, g.itemsize))


@dataclass(frozen=True, eq=False)
class _Run:
    """A prepared solve of some images of a batch, for any addresses of images."""

    start: int  # bytes before the first image
    batch: int
    plan: Program
    solve: machine.Code
    sums: machine.Code
    shared: Any  # the type of the shared state: the ticket, and each unit's progress


@functools.lru_cache(maxsize=256)
def _runs(
    g: Geometry, target: Target, batch: int, workers: int
) -> tuple[tuple[_Run, ...], int, int]:
    """Return the runs of a batch's parts, the number of threads and the bytes of the largest."""
    numbers, products = batch * g.channels * g.pixels, g.channels * len(g.reach)
    workers = costs.threads(workers, costs.seconds(numbers, products, g.itemsize, target))
    image, runs, start = g.channels * g.pixels * g.itemsize, list[_Run](), 0
    for count in best_parts(g, batch, workers):
        plan = best_program(g, count, workers)
        solve = machine.solve(target, g.itemsize, plan.way)
        sums = machine.sums(target, g.itemsize, plan.way, *plan.sums)
        shared = ctypes.c_int64 * (1 + plan.units(count))
        runs.append(_Run(start * image, count, plan, solve, sums, shared))
        start += count
    most = max(min(workers, run.plan.units(run.batch)) for run in runs)
    return tuple(runs), most, max(run.plan.header.size for run in runs) * g.itemsize


class _Buffers(threading.local):
    """The buffer that a thread solves in, kept from one solve to the next, up to 32 MiB.

    A buffer has one user at a time: a signal handler that solves meanwhile allocates its own.
    """

    kept: Buffer | None = None  # an aligned address, and the array that owns the memory


BUFFERS = _Buffers()


def in_buffers(
    size: int,
    workers: int,
    work: Callable[..., object],
    before: tuple[Any, ...] = (),
    after: tuple[Any, ...] = (),
    keeps: object = None,
) -> None:
    """Call ``work(*before, z, *after)`` in threads, z the address of a buffer of ``size`` bytes.

    After an interrupt other threads go on for a while: they keep the memory they use, ``keeps``.
    """
    if workers > 1:
        given = size, 1, work, before, after, keeps
        threads.together(functools.partial(in_buffers, *given), workers)
        return
    buffer, BUFFERS.kept = BUFFERS.kept, None
    if buffer is None or buffer[1].size < size + costs.LINE:
        memory = np.empty(size + costs.LINE, np.int8)
        (start,) = addresses(memory)
        buffer = start + -start % costs.LINE, memory  # no vector lies across two lines
    work(*before, buffer[0], *after)
    if buffer[1].size <= costs.KEPT:
        BUFFERS.kept = buffer
