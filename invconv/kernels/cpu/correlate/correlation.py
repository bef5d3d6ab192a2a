"""Correlations by the compiled kernel, on arrays in host memory.

    y[b, :, p] = sum over t of taps[t] x[b, :, p + offset_t]

The matrices of the taps are read in place, for example from a kernel (C, C, *k).
"""

import ctypes
import functools
import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from invconv.arrays.stencil import Offset
from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.compiled import in_buffers
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.correlate import programs
from invconv.kernels.cpu.correlate.programs import Border, CorrelationProgram, Places, Reading
from invconv.kernels.cpu.geometry import Shape
from invconv.kernels.cpu.program import Floats, addresses

Lanes = Literal["images", "pixels"]


@dataclass(frozen=True, eq=False)
class CompiledCorrelation:
    """A correlation on a grid, for any taps and images."""

    target: Target
    reading: Reading
    program: CorrelationProgram
    lanes: Lanes  # of a vector
    itemsize: int
    code: machine.Code
    sums: machine.Code

    @functools.cached_property
    def by_images(self) -> "CompiledCorrelation | None":
        """The same with images in the lanes, or None if the images are too large."""
        given = self.reading, self.program.header.channels, self.itemsize
        return _compiled(self.target, *given, "images")

    def seconds(self, batch: int, workers: int = 1) -> float:
        h, units = self.program.header, self.units(batch)
        if self.lanes == "images":
            batch = units * h.images  # idle lanes included
        numbers = batch * h.channels * h.pixels * -(-units // workers) / units
        products = self.program.products * h.channels / h.pixels
        return costs.seconds(numbers, products, self.itemsize, self.target)

    def units(self, batch: int) -> int:
        h = self.program.header
        return int(-(-batch // h.images) * (h.pieces if self.lanes == "pixels" else 1))

    def run(
        self, taps: int, places: Places, x: int, y: int, batch: int, workers: int, *keeps: object
    ) -> None:
        """Correlate images at the address ``x``, and put the results at ``y``.

        ``taps`` is the address of the first tap's matrix, and the others are of contiguous arrays
        (batch, C, *shape). ``workers`` and ``keeps`` are as for `cpu.compiled.CompiledSolve.run`.
        """
        way, workers = _way(self, batch, workers)
        shared = ctypes.c_int64()  # the ticket
        given = x, y, taps, way.program.address, ctypes.addressof(shared)
        last, size = (way.sums.address, batch, *places), way.program.header.size * way.itemsize
        in_buffers(size, workers, way.code.call, given, last, (way, shared, keeps))

    @functools.cached_property
    def gram(self) -> machine.Code:
        from invconv.kernels.cpu.correlate.loops import write_gram

        channels = self.program.header.channels
        block = (min(channels, most) for most in costs.GRAM[self.target.registers])
        return machine.compiled(self.target, self.itemsize, write_gram, *block, thorough=True)

    def parts(self, batch: int, workers: int) -> int:
        """Return the number of parts of a batch in `run_vjp`; each is summed by one thread."""
        h = self.program.header
        numbers, products = batch * h.channels * h.pixels, h.channels * h.taps
        seconds = costs.seconds(numbers, products, self.itemsize, self.target, copied=False)
        return min(batch, costs.threads(workers, seconds))

    def run_vjp(
        self,
        x: int,
        y_bar: int,
        totals: int,
        places: Places,
        apart: int,
        batch: int,
        parts: int,
        *keeps: object,
    ) -> None:
        """Add the gradient of <y_bar, correlate(taps, x)> by the taps, in parts, to ``totals``.

        ``totals`` is the address of the first tap's matrix of the first part, and ``apart`` the
        bytes from a part's matrices to the next part's. The other arguments are as for `run`.
        """
        h, take, code = self.program.header, itertools.count().__next__, self.gram
        image = h.channels * h.pixels * self.itemsize

        def work(z: int) -> None:
            while (i := take()) < parts:
                start, stop = batch * i // parts, batch * (i + 1) // parts
                given = x + start * image, y_bar + start * image, totals + i * apart
                code.call(*given, self.program.address, z, stop - start, *places)

        in_buffers(h.size * self.itemsize, parts, work, keeps=(self, code, keeps))


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
    read = programs.reading(shape, offsets, wrap)
    if read is None:
        return None
    return _compiled(target or host(), read, channels, itemsize, "pixels")


def _compiled(
    target: Target, read: Reading, channels: int, itemsize: int, lanes: Lanes
) -> CompiledCorrelation | None:
    """Return a correlation, or None if images are too large for the lanes."""
    from invconv.kernels.cpu.correlate.loops import write_correlation, write_images_correlation

    make: Any = programs.correlation_program if lanes == "pixels" else programs.images_program
    program = make(read, channels, target, itemsize)
    if program is None:
        return None
    write = write_correlation if lanes == "pixels" else write_images_correlation
    h, code = program.header, machine.compiled(target, itemsize, write)
    sums = machine.sums(target, itemsize, "images", h.block, h.blocks == 1)
    return CompiledCorrelation(target, read, program, lanes, itemsize, code, sums)


@functools.lru_cache(maxsize=256)
def _way(given: CompiledCorrelation, batch: int, workers: int) -> tuple[CompiledCorrelation, int]:
    """Return the quickest correlation, pixels or images in the lanes, and its number of threads."""
    ways, workers = [given], costs.threads(workers, given.seconds(batch))
    if 2 * batch > given.target.lanes(given.itemsize) and given.by_images:
        ways.append(given.by_images)
    best = min(ways, key=lambda one: one.seconds(batch, workers))
    return best, min(workers, best.units(batch))


def compiled_kernel_vjp(
    x: Floats,
    y_bar: Floats,
    offsets: tuple[Offset, ...],
    wrap: bool,
    workers: int = 1,
    target: Target | None = None,
) -> Floats:
    """Return the gradient of <y_bar, correlate(taps, x)> by the taps, of contiguous arrays."""
    channels = x.shape[1]
    correlation = compiled_correlation(channels, x.shape[2:], offsets, wrap, x.itemsize, target)
    if correlation is None:
        return np.zeros((len(offsets), channels, channels), x.dtype)
    parts = correlation.parts(len(x), workers)
    totals = np.zeros((parts, len(offsets), channels, channels), x.dtype)
    places, apart = programs.of_taps(channels), totals[0].nbytes
    at_x, at_y, at_first = addresses(x, y_bar, totals)
    correlation.run_vjp(at_x, at_y, at_first, places, apart, len(x), parts, x, y_bar, totals)
    total: Floats = totals.sum(axis=0)
    return total
