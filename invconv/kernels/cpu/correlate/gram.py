"""The gradient of a correlation by its taps, compiled: products of pixels, summed over images.

taps_bar[t] = sum over b, p of y_bar[b, :, p] x[b, :, p + offset_t]^T

x and y_bar lie in buffers like the images and results of a correlation
(`invconv.kernels.cpu.correlate.bands`), so that for every tap a vector of y_bar is multiplied with
the vector of x at a fixed distance. Sums of some output and input channels at a time are kept in
registers.
"""

from __future__ import annotations

from typing import Any

from invconv.kernels.cpu.compiler.integers import Int
from invconv.kernels.cpu.compiler.ir import Writer
from invconv.kernels.cpu.correlate.bands import Band, CorrelationHeader
from invconv.kernels.cpu.correlate.bands_loop import (
    PLACES,
    clear,
    copy_pieces,
    counts,
    place_of,
    write_run,
)
from invconv.kernels.cpu.loop import load_record
from invconv.kernels.cpu.program import size

POINTERS = ("x", "y_bar", "total", "program", "z")


def write_gram(w: Writer, outputs: int, inputs: int) -> None:
    """Write the function "gram" of `POINTERS`, the number of images, and the places of matrices.

    The function adds to the matrices from ``total`` on, the first tap's; ``z`` is a buffer. The
    sums of ``outputs`` output channels and ``inputs`` input channels are in registers at once.
    """
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
