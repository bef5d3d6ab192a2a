"""The gradient of a correlation by its taps, compiled: products of pixels, summed over images.

taps_bar[t] = sum over b, p of y_bar[b, :, p] x[b, :, p + offset_t]^T

x and y_bar lie in buffers like the images and results of a correlation
(`invconv.kernels.cpu.correlate.bands`), so that for every tap a vector of y_bar is multiplied with
the vector of x at a fixed distance. Sums of some output and input channels at a time are kept in
registers.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from invconv.arrays.stencil import Offset
from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.compiled import in_buffers
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.correlate.bands import (
    Band,
    Border,
    CorrelationHeader,
    CorrelationProgram,
    Places,
    correlation_program,
    of_taps,
    reading,
)
from invconv.kernels.cpu.geometry import Shape
from invconv.kernels.cpu.program import address_of, size

if TYPE_CHECKING:
    from invconv.kernels.cpu.compiler.integers import Int
    from invconv.kernels.cpu.compiler.ir import Writer

Floats = np.ndarray[Any, Any]
POINTERS = ("x", "y_bar", "total", "program", "z")


def write_gram(w: Writer, outputs: int, inputs: int) -> None:
    """Write the function "gram" of `POINTERS`, the number of images, and the places of matrices.

    The function adds to the matrices from ``total`` on, the first tap's; ``z`` is a buffer. The
    sums of ``outputs`` output channels and ``inputs`` input channels are in registers at once.
    """
    from invconv.kernels.cpu.correlate.bands_loop import PLACES, clear, copy_pieces, write_run
    from invconv.kernels.cpu.loop import load_record

    write_run(w)
    with w.function("gram", POINTERS, ("images", *PLACES), inside=False) as a:
        h = load_record(w, CorrelationHeader, a["program"], w.integer(0))
        out = w.at(a["z"], h["out"])
        for buffer in (a["z"], out):
            clear(w, buffer, h, a["images"])
        with w.loop(0, a["images"], h["images"]) as image, w.loop(0, h["bands"]) as number:
            band = load_record(w, Band, a["program"], h["body"] + number * size(Band))
            here = (a["images"] - image).least(h["images"])
            place = image * h["channels"] * h["pixels"]
            images = w.at(a["x"], place), a["z"]
            copy_pieces(w, a["program"], h, band, here, *images, "in")
            bars = w.at(a["y_bar"], place), out
            copy_pieces(w, a["program"], h, band, here, *bars, "out", back=True)
            positions = (here - 1) * h["image_step"] + band["positions"]
            with w.loop(0, h["channels"]) as c:  # the last vector ends in zeros
                end = c * h["channel_step"] + band["at"] + positions
                w.clear(w.at(out, end), w.integer(w.lanes))
            _products(w, a, h, band["at"], positions, outputs, inputs)


def _products(
    w: Writer,
    a: dict[str, Any],
    h: dict[str, Int],
    at: Int,
    positions: Int,
    outputs: int,
    inputs: int,
) -> None:
    """Write the products of all pairs of channels, for each tap."""
    from invconv.kernels.cpu.correlate.bands_loop import counts, place_of

    channels, last = h["channels"], h["channels"] - 1
    out = w.at(a["z"], h["out"])
    with (
        w.loop(0, h["taps"]) as t,
        w.loop(0, channels, outputs) as first,
        w.loop(0, channels, inputs) as start,
    ):
        offset = w.entry(a["program"], h["taps_read"] + t * 2 + 2)
        # beyond the last channel, the last one is read again, and its products are not added
        rows = [(first + o).least(last) * h["channel_step"] for o in range(outputs)]
        columns = [(start + k).least(last) * h["channel_step"] + offset for k in range(inputs)]
        sums = [[w.new(w.zero) for _ in range(inputs)] for _ in range(outputs)]
        with w.loop(0, positions, w.lanes) as j:
            place = at + j
            bars = [w.load(out, row + place) for row in rows]
            for k, column in enumerate(columns):
                x = w.load(a["z"], column + place)
                for o, bar in enumerate(bars):
                    sums[o][k].add_product(bar, x)
        tap = w.entry(a["program"], h["order"] + t)
        for o in range(outputs):
            for k in range(inputs):
                row, column = first + o, start + k
                inside = w.b.and_(row.is_("<", channels), column.is_("<", channels))
                with w.b.if_then(w.b.and_(inside, counts(a, tap, row, column))):
                    entry = place_of(a, tap, row, column)
                    total = w.sum(sums[o][k].value)
                    known = w.load(a["total"], entry, w.number)
                    w.store(w.b.fadd(known, total), a["total"], entry)


@dataclass(frozen=True, eq=False)
class CompiledGram:
    """The gradient of <y_bar, correlate(taps, x)> by the taps on a grid, for any images."""

    program: CorrelationProgram
    code: machine.Code
    itemsize: int
    seconds: float  # about how long an image takes

    def parts(self, batch: int, workers: int) -> int:
        """Return the number of parts of a batch; each is summed by one thread."""
        return min(workers, batch) if workers > 1 and batch * self.seconds >= costs.SHARED else 1

    def run(
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
        """Add the sums over parts of a batch to ``totals``.

        ``x`` and ``y_bar`` are addresses of contiguous arrays (batch, C, *shape), ``totals`` is
        that of the first tap's matrix of the first part, and ``apart`` the bytes from a part's
        matrices to the next part's. ``keeps`` own the memory, for threads that go on after an
        interrupt.
        """
        h, take = self.program.header, itertools.count().__next__
        image = h.channels * h.pixels * self.itemsize

        def work(z: int) -> None:
            while (i := take()) < parts:
                start, stop = batch * i // parts, batch * (i + 1) // parts
                given = x + start * image, y_bar + start * image, totals + i * apart
                self.code.call(*given, self.program.address, z, stop - start, *places)

        in_buffers(work, h.size * self.itemsize, parts, self, keeps)


@functools.lru_cache(maxsize=256)
def compiled_gram(
    channels: int,
    shape: Shape,
    offsets: tuple[Offset, ...],
    wrap: Border,
    itemsize: int,
    target: Target | None = None,
) -> CompiledGram | None:
    """Return the gradient by taps at some offsets, or None if no tap reaches a pixel."""
    target, read = target or host(), reading(shape, offsets, wrap)
    if read is None:
        return None
    program = correlation_program(read, channels, target, itemsize)
    wide, h = target.registers == 32, program.header
    block = min(channels, 4 if wide else 3), min(channels, 6 if wide else 4)
    code = machine.compiled(target, itemsize, write_gram, *block, thorough=True)
    seconds = costs.seconds(channels * h.pixels, channels * len(offsets), itemsize, target, 0.0)
    return CompiledGram(program, code, itemsize, seconds)


def compiled_kernel_vjp(
    x: Floats,
    y_bar: Floats,
    offsets: tuple[Offset, ...],
    wrap: bool,
    workers: int = 1,
    target: Target | None = None,
) -> Floats:
    """Return the gradient of <y_bar, correlate(taps, x)> by the taps, shape (T, C, C).

    ``x`` and ``y_bar`` are contiguous arrays (B, C, *spatial), ``wrap`` is as in
    `invconv.kernels.primitives.correlate`. There are at most so many ``workers``; each sums over a
    part of the batch.
    """
    channels = x.shape[1]
    gram = compiled_gram(channels, x.shape[2:], offsets, wrap, x.itemsize, target)
    parts = 1 if gram is None else gram.parts(len(x), workers)
    totals = np.zeros((parts, len(offsets), channels, channels), x.dtype)
    if gram is not None:
        given = address_of(x), address_of(y_bar), address_of(totals)
        places, apart = of_taps(channels), totals[0].nbytes
        gram.run(*given, places, apart, len(x), parts, x, y_bar, totals)
    total: Floats = totals.sum(axis=0) if parts > 1 else totals[0]
    return total
