"""Correlations by the compiled kernel, and their gradients by the taps, in host memory.

    y[b, :, p] = sum over t of taps[t] x[b, :, p + offset_t]
    taps_bar[t] = sum over b, p of y_bar[b, :, p] x[b, :, p + offset_t]^T

The matrices of the taps are read in place, for example from a kernel (C, C, *k). Bands of images,
or the images in the lanes, are copied in, summed by `cpu.sums`, and copied out. For the gradient, x
and y_bar lie in buffers like the images and results of a correlation: for every tap a vector of
y_bar is multiplied with the vector of x at a fixed distance.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from invconv.arrays.stencil import Offset
from invconv.kernels.cpu import costs, machine
from invconv.kernels.cpu.compiled import in_buffers
from invconv.kernels.cpu.compiler.target import Target, host
from invconv.kernels.cpu.correlate import programs
from invconv.kernels.cpu.correlate.programs import Border, CorrelationProgram, Places, Reading
from invconv.kernels.cpu.geometry import Shape
from invconv.kernels.cpu.program import Floats, addresses, size

if TYPE_CHECKING:  # llvmlite may be missing
    from invconv.kernels.cpu.compiler.ir import Arguments, Int, Numbers, Value, Writer

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
    def by_images(self) -> CompiledCorrelation | None:
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
        way, workers = way_of(self, batch, workers)
        shared = ctypes.c_int64()  # the ticket
        given = x, y, taps, way.program.address, ctypes.addressof(shared)
        last, size = (way.sums.address, batch, *places), way.program.header.size * way.itemsize
        in_buffers(size, workers, way.code.call, given, last, (way, shared, keeps))

    @property
    def block(self) -> tuple[int, ...]:
        """The channels of y_bar and of x whose products "gram" sums at once."""
        channels = self.program.header.channels
        return tuple(min(channels, most) for most in costs.GRAM[self.target.registers])

    @functools.cached_property
    def gram(self) -> machine.Code:
        return machine.compiled(self.target, self.itemsize, write_gram, *self.block, thorough=True)

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
    make: Any = programs.correlation_program if lanes == "pixels" else programs.images_program
    program = make(read, channels, target, itemsize)
    if program is None:
        return None
    write = write_correlation if lanes == "pixels" else write_images_correlation
    h, code = program.header, machine.compiled(target, itemsize, write)
    sums = machine.sums(target, itemsize, "images", h.block, h.blocks == 1)
    return CompiledCorrelation(target, read, program, lanes, itemsize, code, sums)


@functools.lru_cache(maxsize=256)
def way_of(given: CompiledCorrelation, batch: int, workers: int) -> tuple[CompiledCorrelation, int]:
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


INTEGERS = "images tap row column triangle"  # the last four: `Places`
# pointers and integers of "correlate", and of "gram"
SIGNATURE = "x y taps program shared z sums", INTEGERS
GRAM = "x y_bar total program z", INTEGERS


def write_correlation(w: Writer) -> None:
    """Write "correlate"; ``taps`` is the first tap's matrix, the others are as for "solve"."""
    from invconv.kernels.cpu.loop import each_unit

    with w.function("correlate", *SIGNATURE, inside=False) as a:
        h = w.record(programs.CorrelationHeader, a["program"])
        _pack(w, a, h)
        _clear(w, a["z"], h, a["images"])
        groups = a["images"].over(h["images"])
        with each_unit(w, a["shared"], groups * h["pieces"]) as taken:
            image = taken % groups * h["images"]
            band, positions = _place(w, a, h, image, taken // groups)
            _copy(w, a, h, band, image, "x")
            columns, lists = positions.over(w.lanes), h["lists"]
            _call_sums(w, a, h, lists, at=band["at"], columns=columns, column_step=w.lanes)
            _copy(w, a, h, band, image, "y")


def _place(w: Writer, a: Arguments, h: Numbers, image: Int, number: Int) -> tuple[Numbers, Int]:
    """Return the record of a band, and the number of positions of the images in the buffer."""
    band = w.record(programs.Band, a["program"], h["body"] + number * size(programs.Band))
    here = (a["images"] - image).least(h["images"])
    return band, (here - 1) * h["image_step"] + band["positions"]


def _clear(w: Writer, buffer: Value, h: Numbers, images: Int) -> None:
    """Write zeros into the part of a buffer that so many images take, at most all of it."""
    count = h["channel_step"] - (h["images"] - images.least(h["images"])) * h["image_step"]
    with w.loop(0, h["channels"]) as c:
        w.clear(w.at(buffer, c * h["channel_step"]), count)


def _copy(w: Writer, a: Arguments, h: Numbers, band: Numbers, image: Int, array: str) -> None:
    """Write the copy of "x" to the buffer, of "y_bar" to its results, or of "y" from these."""
    images = (a["images"] - image).least(h["images"])
    memory = w.at(a[array], image * h["channels"] * h["pixels"])
    buffer = a["z"] if array == "x" else w.at(a["z"], h["out"])
    pieces, number = ("read", "reads") if array == "x" else ("written", "writes")
    first, count = h["copies"] + band[pieces], band[number]
    with w.loop(0, images) as i, w.loop(0, h["channels"]) as c, w.loop(0, count) as n:
        outside, inside, many = (w.entry(a["program"], first + n * 3 + k) for k in range(3))
        there = outside.is_(">=", 0)
        in_memory = w.at(memory, (i * h["channels"] + c) * h["pixels"] + outside.if_(there, 0))
        in_buffer = w.at(buffer, i * h["image_step"] + c * h["channel_step"] + inside)
        target, source = [in_buffer, in_memory][:: -1 if array == "y" else 1]
        with w.b.if_else(there) as (then, otherwise):
            with then:
                w.move(target, source, many)
            with otherwise:
                w.clear(target, many)


def _call_sums(w: Writer, a: Arguments, h: Numbers, lists: Int, **given: Int | int) -> None:
    """Write the sums of a row of pixels that share the list of taps at a place of the program."""
    from invconv.kernels.cpu.sums import SIGNATURE

    pointers = {
        "z": a["z"],
        "out": w.at(a["z"], h["out"]),
        "w": w.at(a["z"], h["weights"]),
        "spare": w.at(a["z"], h["spare"]),
        "lists": w.entries(a["program"], lists),
    }
    w.call_outside(a["sums"], SIGNATURE, h, **pointers, rows=1, **given)


def _pack(w: Writer, a: Arguments, h: Numbers) -> None:
    """Write the weights in the layout of `cpu.weights`, with zeros for channels beyond the last."""
    channels, block, taps = h["channels"], h["block"], h["taps"]
    with w.loop(0, h["blocks"]) as b, w.loop(0, taps) as t:
        tap = w.entry(a["program"], h["order"] + t)
        with w.loop(0, channels) as k, w.loop(0, block) as o:
            channel = b * block + o
            there = w.b.and_(channel.is_("<", channels), _counts(a, tap, channel, k))
            entry = w.load(a["taps"], _place_of(a, tap, channel.if_(there, 0), k), w.number)
            place = h["weights"] + ((b * taps + t) * channels + k) * block + o
            w.store(w.b.select(there, entry, w.number(0.0)), a["z"], place)


def _place_of(a: Arguments, tap: Int, row: Int, column: Int) -> Int:
    """Return the place of an entry of a tap's matrix."""
    place: Int = tap * a["tap"] + row * a["row"] + column * a["column"]
    return place


def _counts(a: Arguments, tap: Int, row: Int, column: Int) -> Value:
    """Return the condition that an entry of a tap's matrix is not masked."""
    return ((row - column) * a["triangle"].if_(tap.is_("==", 0), 0)).is_(">=", 0)


def write_images_correlation(w: Writer) -> None:
    """Write the function "correlate": the lanes are images."""
    from invconv.kernels.cpu.copies import write_copies
    from invconv.kernels.cpu.loop import each_unit

    write_copies(w, "wholes")
    with w.function("correlate", *SIGNATURE, inside=False) as a:
        h = w.record(programs.CorrelationHeader, a["program"])
        _pack(w, a, h)
        image_size, step = h["channels"] * h["pixels"], h["channels"] * h["images"]
        with each_unit(w, a["shared"], a["images"].over(h["images"])) as group:
            image = group * h["images"]
            x, y = (w.at(a[name], image * image_size) for name in "xy")
            copied = {
                "lines_there": (a["images"] - image).least(h["images"]),
                "line_step": image_size,
                "channel_stride": h["pixels"],
                "count": h["pixels"],
                "width": h["pixels"],
                "step": step,
            }
            w.call_inside("enter", h, lines=x, z=a["z"], **copied)
            with w.loop(0, h["pieces"]) as i:
                run = w.record(programs.Run, a["program"], h["body"] + i * size(programs.Run))
                place = {"at": run["at"], "columns": run["columns"], "column_step": step}
                _call_sums(w, a, h, h["lists"] + run["taps"], **place)
            w.call_inside("leave", h, lines=y, z=w.at(a["z"], h["out"]), **copied)


def write_gram(w: Writer, outputs: int, inputs: int) -> None:
    """Write "gram", which adds to the matrices; ``outputs`` x ``inputs`` sums are in registers."""
    with w.function("gram", *GRAM, inside=False) as a:
        h = w.record(programs.CorrelationHeader, a["program"])
        out = w.at(a["z"], h["out"])
        for buffer in (a["z"], out):
            _clear(w, buffer, h, a["images"])
        with w.loop(0, a["images"], h["images"]) as image, w.loop(0, h["pieces"]) as number:
            band, positions = _place(w, a, h, image, number)
            _copy(w, a, h, band, image, "x")
            _copy(w, a, h, band, image, "y_bar")
            with w.loop(0, h["channels"]) as c:  # the last vector ends in zeros
                end = c * h["channel_step"] + band["at"] + positions
                w.clear(w.at(out, end), w.integer(w.lanes))
            _products(w, a, h, band["at"], positions, outputs, inputs)


def _products(
    w: Writer, a: Arguments, h: Numbers, at: Int, positions: Int, outputs: int, inputs: int
) -> None:
    channels, last = h["channels"], h["channels"] - 1
    out = w.at(a["z"], h["out"])
    with (
        w.loop(0, h["taps"]) as t,
        w.loop(0, channels, outputs) as first,
        w.loop(0, channels, inputs) as start,
    ):
        offset = w.entry(a["program"], h["lists"] + t * 2 + 2)
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
                with w.b.if_then(w.b.and_(inside, _counts(a, tap, row, column))):
                    entry = _place_of(a, tap, row, column)
                    total = w.sum(sums[o][k].value)
                    known = w.load(a["total"], entry, w.number)
                    w.store(w.b.fadd(known, total), a["total"], entry)
