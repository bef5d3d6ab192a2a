"""Solves of causal stencils by the compiled kernel, on arrays in host memory.

    x[p] = D^-1 (y[p] - sum over t of K_t x[p - o_t])

`compiled_solve` factors: plan, machine code, weights.
"""

from __future__ import annotations

import ctypes
import functools
import math
import operator
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invconv.arrays.stencil import Offset
from invconv.kernels.cpu import machine, threads
from invconv.kernels.cpu.assembly import best_parts, best_way, program
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.plan import Geometry, Shape, geometry_of

Floats = np.ndarray[Any, Any]
Buffer = tuple[int, Floats]

_KEPT = 2**25  # bytes of a buffer that a thread keeps
_ALIGNED = 64  # bytes: vectors do not lie across two lines of the cache
# seconds, about: to copy a float32 in and out, to multiply one, and from which on threads share
_COPY, _MULTIPLY, _SHARED = 3.5e-10, 1.25e-11, 5e-4

_state = operator.methodcaller("shared")  # a new one of a `_Run`

_PREPARE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)
_SOLVE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 7, ctypes.c_int64)


def available(itemsize: int) -> bool:
    """Tell whether the kernel runs here; `machine.reason` says why it does not."""
    return machine.reason(itemsize) is None


@dataclass(frozen=True, eq=False)
class CompiledSolve:
    """A causal stencil on a grid, factored: its weights, and all that the kernel goes by.

    Attributes
    ----------
    geometry : Geometry
    target : Target
    weights : array
        As `invconv.kernels.cpu.weights` lays them out.
    """

    geometry: Geometry
    target: Target
    weights: Floats
    _weights: int = field(init=False)
    _sample: Shape = field(init=False)
    # the last batch and number of threads, and their runs
    _last: Any = field(default=(None, (None, 1)), init=False)

    def __post_init__(self) -> None:
        sample = self.geometry.channels, *self.geometry.shape
        vars(self).update(_weights=address_of(self.weights), _sample=sample)

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        corner = "triangular solve" if self.weights[-1] else "cached inverse"
        return {
            "method": "compiled kernel",
            "at the pixel": corner,
            "vectors": f"{self.geometry.lanes} numbers of {8 * self.geometry.itemsize} bits",
        }

    def require(self, shape: Shape, itemsize: int) -> None:
        """Raise ValueError unless images are such as the kernel will read: it looks at no shape."""
        g = self.geometry
        if shape[1:] != self._sample or itemsize != g.itemsize:
            require_images((g.channels, g.pixels, g.itemsize), shape, itemsize)

    def solve(self, y: int, x: int, batch: int, workers: int, *keeps: object) -> None:
        """Solve images at the address ``y``, and put the results at ``x``.

        Parameters
        ----------
        y, x : int
            Addresses of contiguous arrays (batch, C, *shape) of the stencil's dtype.
        batch : int
        workers : int
            Threads at most: few images are solved by one.
        *keeps
            What must not be freed while another thread may still be at work.
        """
        key, (runs, most) = self._last
        if key != (batch, workers):  # to hash a geometry takes as long as a small solve
            runs, most = found = _runs(self.geometry, self.target, batch, workers)
            vars(self).update(_last=((batch, workers), found))
        states = list(map(_state, runs))

        def work(*_: object) -> None:
            for run, state in zip(runs, states, strict=True):
                buffer, images = BUFFERS.take(run.size), (y + run.start, x + run.start)
                given = *images, self._weights, run.program, ctypes.addressof(state), buffer[0]
                run.solve(*given, run.sums, run.batch)
                BUFFERS.keep(buffer)

        if most == 1:
            work()
        else:
            # after an interrupt the others go on for a while: they have what they use
            threads.together(functools.partial(work, self, runs, states, keeps), most)


def require_images(expected: tuple[int, int, int], shape: Shape, itemsize: int) -> None:
    """Raise ValueError unless images have the expected channels, pixels, and bytes of a number."""
    found = shape[1], math.prod(shape[2:]), itemsize
    if found != expected:
        channels, pixels, size = expected
        raise ValueError(
            f"y: expected {channels} channels of {pixels} pixels of {size} bytes, "
            f"got {found[0]} of {found[1]} of {found[2]}"
        )


def compiled_solve(
    matrices: Floats,
    shape: Shape,
    reach: tuple[Offset, ...],
    direction: tuple[int, ...],
    dilation: tuple[int, ...],
    lower: bool,
    target: Target | None = None,
) -> CompiledSolve:
    """Factor a causal stencil on a grid.

    Parameters
    ----------
    matrices : array, shape (1 + T, C, C)
        Float32 or float64: D, then the taps'.
    shape : tuple of int
        The grid.
    reach, direction, dilation, lower
        As in `invconv.kernels.wavefront.CausalStencil`.
    target : Target, optional
        This processor unless given.
    """
    matrices = np.ascontiguousarray(matrices)
    target, channels, itemsize = target or host(), matrices.shape[1], matrices.dtype.itemsize
    g = geometry_of(channels, shape, reach, direction, dilation, lower, itemsize, target)
    factored = CompiledSolve(g, target, np.empty(g.weights, matrices.dtype))
    prepare, numbers, _ = _prepare(g, target)
    scratch = BUFFERS.take(g.scratch * itemsize)
    prepare(address_of(matrices), factored._weights, numbers, scratch[0])
    BUFFERS.keep(scratch)
    return factored


@functools.lru_cache(maxsize=256)
def _prepare(g: Geometry, target: Target) -> tuple[Any, int, object]:
    """Return the function that lays out weights, its program's address, and what keeps both."""
    code, numbers = machine.prepare(target, g.itemsize), program(g, "images", False).numbers
    return _PREPARE(code.addresses["prepare"]), address_of(numbers), (code, numbers)


@dataclass(frozen=True, eq=False)
class _Run:
    """What solves of some images of a batch have in common.

    Attributes
    ----------
    start, batch : int
        How many bytes are before the first image, and how many images there are.
    solve : object
        The compiled function.
    sums, program : int
        Addresses.
    keeps : tuple
        What keeps them.
    shared : type
        Of the ticket, and each unit's progress.
    size : int
        Bytes of a thread's buffer.
    workers : int
    """

    start: int
    batch: int
    solve: Any
    sums: int
    program: int
    keeps: tuple[Any, ...]
    shared: Any
    size: int
    workers: int


@functools.lru_cache(maxsize=256)
def _runs(g: Geometry, target: Target, batch: int, workers: int) -> tuple[tuple[_Run, ...], int]:
    """Return the runs of a batch, and how many threads the largest has.

    They are of all images, or of those that fill vectors and of the rest.
    """
    numbers = batch * g.channels * g.pixels
    seconds = numbers * (_COPY + _MULTIPLY * g.channels * len(g.reach)) * g.itemsize / 4
    if seconds * 512 / target.bits < _SHARED:
        workers = 1
    image, runs, start = g.channels * g.pixels * g.itemsize, list[_Run](), 0
    for count in best_parts(g, batch, workers):
        found = program(g, best_way(g, count, workers), workers > 1)
        solve = machine.solve(target, g.itemsize, found.lanes)
        sums = machine.sums(target, g.itemsize, g.block, g.single)
        units = found.units(count)
        runs.append(
            _Run(
                start=start * image,
                batch=count,
                solve=_SOLVE(solve.addresses["solve"]),
                sums=sums.addresses["sums"],
                program=address_of(found.numbers),
                keeps=(found, solve, sums),
                shared=ctypes.c_int64 * (1 + units),
                size=found.header.size * g.itemsize,
                workers=min(workers, units),
            )
        )
        start += count
    return tuple(runs), max(run.workers for run in runs)


class _Buffers(threading.local):
    """The memory that a thread solves in, kept from one solve to the next, up to 32 MiB.

    It has one user at a time: a signal's handler that solves meanwhile finds none, and makes one.
    """

    def __init__(self) -> None:
        self._kept: Buffer | None = None

    def take(self, size: int) -> Buffer:
        """Return the address of so many bytes, and the array that has them."""
        found, self._kept = self._kept, None
        if found is None or found[1].size < size + _ALIGNED:
            memory = np.empty(size + _ALIGNED, np.int8)
            start = address_of(memory)
            found = start + -start % _ALIGNED, memory
        return found

    def keep(self, buffer: Buffer) -> None:
        """Keep a buffer for the next solve."""
        if buffer[1].size <= _KEPT:
            self._kept = buffer


BUFFERS = _Buffers()


def address_of(array: Floats) -> int:
    """Return where an array's first number is."""
    found: int = array.__array_interface__["data"][0]
    return found
