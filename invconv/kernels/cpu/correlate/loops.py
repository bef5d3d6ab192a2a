"""The loops of a correlation, and of its gradient by the taps.

    taps_bar[t] = sum over b, p of y_bar[b, :, p] x[b, :, p + offset_t]^T

Bands of images, or the images in the lanes, are copied in, summed by `cpu.sums`, and copied out.
For the gradient, x and y_bar lie in buffers like the images and results of a correlation, so that
for every tap a vector of y_bar is multiplied with the vector of x at a fixed distance.
"""

from invconv.kernels.cpu.compiler.ir import Arguments, Int, Numbers, Value, Writer
from invconv.kernels.cpu.copies import write_copies
from invconv.kernels.cpu.correlate.programs import Band, CorrelationHeader, Run
from invconv.kernels.cpu.loop import each_unit
from invconv.kernels.cpu.program import size
from invconv.kernels.cpu.sums import SIGNATURE

POINTERS = "x y taps program shared z sums"
INTEGERS = "images tap row column triangle"  # the last four: `cpu.correlate.programs.Places`


def write_correlation(w: Writer) -> None:
    """Write "correlate"; ``taps`` is the first tap's matrix, the others are as for "solve"."""
    with w.function("correlate", POINTERS, INTEGERS, inside=False) as a:
        h = w.record(CorrelationHeader, a["program"])
        pack(w, a, h)
        clear(w, a["z"], h, a["images"])
        groups = a["images"].over(h["images"])
        with each_unit(w, a["shared"], groups * h["pieces"]) as taken:
            image = taken % groups * h["images"]
            band, positions = _place(w, a, h, image, taken // groups)
            _copy(w, a, h, band, image, "x")
            columns, lists = positions.over(w.lanes), h["lists"]
            call_sums(w, a, h, lists, at=band["at"], columns=columns, column_step=w.lanes)
            _copy(w, a, h, band, image, "y")


def _place(w: Writer, a: Arguments, h: Numbers, image: Int, number: Int) -> tuple[Numbers, Int]:
    """Return the record of a band, and the number of positions of the images in the buffer."""
    band = w.record(Band, a["program"], h["body"] + number * size(Band))
    here = (a["images"] - image).least(h["images"])
    return band, (here - 1) * h["image_step"] + band["positions"]


def clear(w: Writer, buffer: Value, h: Numbers, images: Int) -> None:
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


def call_sums(w: Writer, a: Arguments, h: Numbers, lists: Int, **given: Int | int) -> None:
    """Write the sums of a row of pixels that share the list of taps at a place of the program."""
    pointers = {
        "z": a["z"],
        "out": w.at(a["z"], h["out"]),
        "w": w.at(a["z"], h["weights"]),
        "spare": w.at(a["z"], h["spare"]),
        "lists": w.entries(a["program"], lists),
    }
    w.call_outside(a["sums"], SIGNATURE, **h | pointers | {"rows": 1} | given)


def pack(w: Writer, a: Arguments, h: Numbers) -> None:
    """Write the weights in the layout of `cpu.weights`, with zeros for channels beyond the last."""
    channels, block, taps = h["channels"], h["block"], h["taps"]
    with w.loop(0, h["blocks"]) as b, w.loop(0, taps) as t:
        tap = w.entry(a["program"], h["order"] + t)
        with w.loop(0, channels) as k, w.loop(0, block) as o:
            channel = b * block + o
            there = w.b.and_(channel.is_("<", channels), counts(a, tap, channel, k))
            entry = w.load(a["taps"], place_of(a, tap, channel.if_(there, 0), k), w.number)
            place = h["weights"] + ((b * taps + t) * channels + k) * block + o
            w.store(w.b.select(there, entry, w.number(0.0)), a["z"], place)


def place_of(a: Arguments, tap: Int, row: Int, column: Int) -> Int:
    """Return the place of an entry of a tap's matrix."""
    place: Int = tap * a["tap"] + row * a["row"] + column * a["column"]
    return place


def counts(a: Arguments, tap: Int, row: Int, column: Int) -> Value:
    """Return the condition that an entry of a tap's matrix is not masked."""
    return ((row - column) * a["triangle"].if_(tap.is_("==", 0), 0)).is_(">=", 0)


def write_images_correlation(w: Writer) -> None:
    """Write the function "correlate": the lanes are images."""
    write_copies(w, "wholes")
    with w.function("correlate", POINTERS, INTEGERS, inside=False) as a:
        h = w.record(CorrelationHeader, a["program"])
        pack(w, a, h)
        image_size, step = h["channels"] * h["pixels"], h["channels"] * h["images"]
        with each_unit(w, a["shared"], a["images"].over(h["images"])) as group:
            image = group * h["images"]
            x, y = (w.at(a[name], image * image_size) for name in "xy")
            copied = h | {
                "lines_there": (a["images"] - image).least(h["images"]),
                "line_step": image_size,
                "channel_stride": h["pixels"],
                "count": h["pixels"],
                "width": h["pixels"],
                "step": step,
            }
            w.call_inside("enter", lines=x, z=a["z"], **copied)
            with w.loop(0, h["pieces"]) as i:
                run = w.record(Run, a["program"], h["body"] + i * size(Run))
                place = {"at": run["at"], "columns": run["columns"], "column_step": step}
                call_sums(w, a, h, h["lists"] + run["taps"], **place)
            w.call_inside("leave", lines=y, z=w.at(a["z"], h["out"]), **copied)


def write_gram(w: Writer, outputs: int, inputs: int) -> None:
    """Write "gram", which adds to the matrices; ``outputs`` x ``inputs`` sums are in registers."""
    with w.function("gram", "x y_bar total program z", INTEGERS, inside=False) as a:
        h = w.record(CorrelationHeader, a["program"])
        out = w.at(a["z"], h["out"])
        for buffer in (a["z"], out):
            clear(w, buffer, h, a["images"])
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
                with w.b.if_then(w.b.and_(inside, counts(a, tap, row, column))):
                    entry = place_of(a, tap, row, column)
                    total = w.sum(sums[o][k].value)
                    known = w.load(a["total"], entry, w.number)
                    w.store(w.b.fadd(known, total), a["total"], entry)
