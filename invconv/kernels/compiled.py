"""Solves of causal stencils by the compiled kernel, on arrays in host memory."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.kernels import images, machine, rows, threads, weights
from invconv.kernels.plan import Geometry
from invconv.kernels.program import Header, Segment, names, numbers
from invconv.kernels.target import Target

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, Any]

_WORTH = 2**20  # multiplications from which other threads are asked to help
_KEPT = 2**25  # bytes of a buffer that a thread keeps
_ALIGNED = 64  # bytes


@dataclass(frozen=True, eq=False)
class Program:
    """The numbers that a solve goes by, and what its buffer needs.

    Attributes
    ----------
    numbers : array of int64
    header : Header
    """

    numbers: Ints
    header: Header

    def units(self, batch: int) -> int:
        """Return into how many units of work a batch falls."""
        return -(-batch // self.header.images) * self.header.units


@functools.lru_cache(maxsize=64)
def program(g: Geometry, lanes: str, shared: bool) -> Program:
    """Return the program of a solve.

    Parameters
    ----------
    g : Geometry
    lanes : {"images", "rows"}
    shared : bool
        Whether several threads may solve one image.
    """
    if lanes == "images":
        header, offsets = images.header(g), images.offsets(g)
        masks, body = np.zeros((0, g.lanes), np.int8), images.segments(g)
    else:
        header, offsets = rows.header(g, shared), rows.offsets(g, shared)
        masks, body = rows.masks(g, shared), rows.segments(g, shared)
    if not header.masked:
        masks = masks[:0]
    packed = np.zeros(-(-masks.size // 8) * 8, np.int8)
    packed[: masks.size] = masks.ravel()
    size, taps = len(names(Header)), len(g.reach)
    header = replace(
        header,
        segments=len(body[0]),
        channels=g.channels,
        pixels=g.pixels,
        taps=taps,
        lower=g.lower,
        block=g.block,
        blocks=g.blocks,
        order=size,
        offsets=size + taps,
        keep=size + taps * (1 + len(offsets)),
        body=size + taps * (1 + len(offsets)) + packed.size // 8,
    )
    found = np.concatenate(
        [
            np.asarray([*numbers(header), *g.order, *itertools.chain(*offsets)], np.int64),
            packed.view(np.int64),
            np.asarray([numbers(s) for unit in body for s in unit], np.int64).ravel(),
        ]
    )
    found.setflags(write=False)
    return Program(found, header)


@functools.lru_cache(maxsize=256)
def lanes_for(g: Geometry, batch: int, workers: int) -> str:
    """Return what should be in the lanes for a batch: what leaves fewer lanes and threads idle."""
    by_images = -(--(-batch // g.lanes) // workers) * g.pixels
    if not rows.possible(g):
        return "images"
    strips = rows.Strips(g, shared=False)
    levels = sum(map(strips.levels, range(strips.count)))
    planes = math.prod(g.shape[:-2])
    if planes > 1 or workers == 1:
        by_rows = -(-batch // workers) * planes * levels
    else:
        by_rows = -(-batch * levels // workers)
    return "images" if by_images <= 1.05 * by_rows else "rows"


class Buffer(threading.local):
    """The memory that a thread solves in, kept from one solve to the next up to 32 MiB."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.int8)

    def address(self, size: int) -> tuple[int, Floats]:
        """Return the address of so many bytes, and what keeps them."""
        memory = self._memory
        if memory.size < size + _ALIGNED:
            memory = np.empty(size + _ALIGNED, np.int8)
            if memory.size <= _KEPT:
                self._memory = memory
        start = address_of(memory)
        return start + -start % _ALIGNED, memory


_BUFFER = Buffer()


def address_of(array: Floats) -> int:
    """Return where an array's first number is."""
    found: int = array.__array_interface__["data"][0]
    return found


@dataclass(frozen=True, eq=False)
class Functions:
    """The compiled functions, as ctypes has them, and what keeps their code."""

    prepare: Any
    solve: Any
    sums: int
    code: tuple[Any, ...]


_PREPARE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_int64)
_SOLVE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 7, ctypes.c_int64)


@functools.lru_cache(maxsize=256)
def functions(target: Target, itemsize: int, block: int, single: bool) -> Functions:
    """Compile what a solve calls."""
    shared = machine.shared(target, itemsize)
    sums = machine.sums(target, itemsize, block, single)
    return Functions(
        _PREPARE(shared.addresses["prepare"]),
        _SOLVE(shared.addresses["solve"]),
        sums.addresses["sums"],
        (shared, sums),
    )


def fold(target: Target, g: Geometry, matrices: Floats) -> Floats:
    """Return the kernel's weights (`invconv.kernels.weights`) of matrices (1 + T, C, C), D first."""
    call = functions(target, g.itemsize, g.block, g.single)
    matrices = np.ascontiguousarray(matrices)
    found = np.empty(weights.weights_size(g.channels, len(g.reach), g.block, g.blocks), matrices.dtype)
    scratch = np.empty(weights.scratch_size(g.channels, len(g.reach), g.lanes), matrices.dtype)
    numbers = program(g, "images", False).numbers
    call.prepare(*map(address_of, (matrices, found, numbers, scratch)), 0)
    return found


def solve(target: Target, g: Geometry, packed: Floats, y: int, x: int, batch: int, workers: int) -> None:
    """Solve a batch of images at the address ``y`` into those at ``x``.

    Parameters
    ----------
    target : Target
    g : Geometry
    packed : array
        From `fold`.
    y, x : int
        Addresses of contiguous arrays (B, C, *shape).
    batch : int
    workers : int
        Threads at most.
    """
    call = functions(target, g.itemsize, g.block, g.single)
    if batch * g.pixels * g.channels**2 * len(g.reach) < _WORTH:
        workers = 1
    way = lanes_for(g, batch, workers)
    found = program(g, way, workers > 1)
    units = found.units(batch)
    shared = np.zeros(1 + units, np.int64)
    given = (y, x, address_of(packed), address_of(found.numbers), address_of(shared))
    size = found.header.size * g.itemsize

    def work() -> None:
        memory, keep = _BUFFER.address(size)
        call.solve(*given, memory, call.sums, batch)
        del keep

    if workers == 1 or units == 1:
        work()
    else:
        threads.together(work, min(workers, units))


_ = Segment
