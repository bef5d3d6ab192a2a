"""Correlations by the compiled kernel, on arrays in host memory.

    y[b, :, p] = sum over t of taps[t] x[b, :, p + offset_t]

The matrices of the taps are read in place, for example from a kernel (C, C, *k).
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, Literal, Self

from invconv.arrays.stencil import Offset
from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.compiled import address_of, in_buffers
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.correlate.bands import (
    Border,
    CorrelationProgram,
    Places,
    Reading,
    correlation_program,
    reading,
)
from invconv.kernels.cpu.correlate.images import images_program
from invconv.kernels.cpu.geometry import Shape

Lanes = Literal["images", "pixels"]

_CORRELATE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 7, *[ctypes.c_int64] * 5)


@dataclass(frozen=True, eq=False)
class CompiledCorrelation:
    """A correlation on a grid, for any taps and images."""

    target: Target
    reading: Reading
    program: CorrelationProgram
    lanes: Lanes  # {"pixels", "images"}: the contents of the lanes of a vector
    itemsize: int
    call: Any  # the compiled function
    # addresses of the compiled sums and of the program
    sums: int
    numbers: int
    code: tuple[machine.Code, ...]  # owners of the functions' memory

    @functools.cached_property
    def size(self) -> int:
        """Bytes of a thread's buffer."""
        return int(self.program.header.size) * self.itemsize

    @classmethod
    def of(
        cls,
        target: Target,
        read: Reading,
        program: CorrelationProgram,
        lanes: Lanes,
        itemsize: int,
    ) -> Self:
        """Compile the functions that run a program."""
        h = program.header
        shared = code(target, itemsize, lanes)
        sums = machine.sums(target, itemsize, "images", h.block, h.blocks == 1)
        call = _CORRELATE(shared.address)
        addresses = sums.address, address_of(program.numbers)
        return cls(target, read, program, lanes, itemsize, call, *addresses, (shared, sums))

    def seconds(self, batch: int, workers: int = 1) -> float:
        """Return about how long a batch takes."""
        h, units = self.program.header, self.units(batch)
        if self.lanes == "images":
            batch = units * h.images  # idle lanes included
        numbers = batch * h.channels * h.pixels * -(-units // workers) / units
        products = self.program.products * h.channels / h.pixels
        return costs.seconds(numbers, products, self.itemsize, self.target)

    def units(self, batch: int) -> int:
        """Return the number of units of work of a batch."""
        h = self.program.header
        return int(-(-batch // h.images) * h.bands)

    def run(
        self,
        taps: int,
        places: Places,
        x: int,
        y: int,
        batch: int,
        workers: int,
        *keeps: object,
    ) -> None:
        """Correlate images at the address ``x``, and put the results at ``y``.

        ``taps`` is the address of the first tap's matrix, and the others are of contiguous arrays
        (batch, C, *shape). ``workers`` and ``keeps`` are as for
        `invconv.kernels.cpu.compiled.CompiledSolve.solve`.
        """
        way, workers = _way(self, batch, workers)
        shared = ctypes.c_int64()  # the ticket
        given = x, y, taps, way.numbers, ctypes.addressof(shared)

        def work(z: int) -> None:
            way.call(*given, z, way.sums, batch, *places)

        in_buffers(work, way.size, workers, way, shared, keeps)


@functools.lru_cache(maxsize=256)
def compiled_correlation(
    channels: int,
    shape: Shape,
    offsets: tuple[Offset, ...],
    wrap: Border,
    itemsize: int,
    target: Target | None = None,
) -> CompiledCorrelation | None:
    """Return the correlation with taps at some offsets, or None if no tap reaches a pixel."""
    target, read = target or host(), reading(shape, offsets, wrap)
    if read is None:
        return None
    lanes = target.bits // 8 // itemsize
    program = correlation_program(read, channels, lanes, target.most_channels, itemsize)
    return CompiledCorrelation.of(target, read, program, "pixels", itemsize)


@functools.lru_cache(maxsize=256)
def _way(given: CompiledCorrelation, batch: int, workers: int) -> tuple[CompiledCorrelation, int]:
    """Return the quickest correlation, pixels or images in the lanes, and its number of threads."""
    ways, workers = [given], workers if given.seconds(batch) >= costs.SHARED else 1
    lanes = given.target.bits // 8 // given.itemsize
    if 2 * batch > lanes and (by_images := _by_images(given)):
        ways.append(by_images)
    best = min(ways, key=lambda one: one.seconds(batch, workers))
    return best, min(workers, best.units(batch))


@functools.lru_cache(maxsize=256)
def _by_images(given: CompiledCorrelation) -> CompiledCorrelation | None:
    """Return a correlation with images in the lanes, or None if the images are too large."""
    target, itemsize, channels = given.target, given.itemsize, given.program.header.channels
    lanes = target.bits // 8 // itemsize
    program = images_program(given.reading, channels, lanes, target.most_channels, itemsize)
    if program is None:
        return None
    return CompiledCorrelation.of(target, given.reading, program, "images", itemsize)


@functools.lru_cache(maxsize=64)
def code(target: Target, itemsize: int, lanes: Lanes) -> machine.Code:
    """Compile "correlate", which serves any number of channels."""
    from invconv.kernels.cpu.correlate.bands_loop import write_correlation
    from invconv.kernels.cpu.correlate.images_loop import write_images_correlation

    write = write_correlation if lanes == "pixels" else write_images_correlation
    return machine.compiled(target, itemsize, "correlate", write)
