"""The loop of a solve: threads take units of work in order, however many threads there are.

A thread that takes a unit waits until the unit before it, of the same image, has solved the pixels
that this unit reads. The earlier unit was taken before, and its thread is at work, so one thread
alone finishes too. Units of different images do not wait for each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from invconv.kernels.cpu import copies, costs, sums
from invconv.kernels.cpu.compiler.ir import I32, I64, VOID, Arguments, Int, Numbers, Value, Writer
from invconv.kernels.cpu.program import Header, Segment, size
from invconv.kernels.cpu.weights import order_of_channels

POINTERS = "y x weights program shared z sums"


def write_solve(w: Writer, lanes: str) -> None:
    """Write the function "solve" of `POINTERS` and the number of images; the sums are elsewhere.

    ``lanes`` is the module of `cpu.lanes` that assigns them. ``shared`` has the next unit to be
    taken, and for each unit the number of its solved columns: zeros at first, the same memory for
    all threads. ``z`` is the buffer of one thread. ``sums`` is the compiled function.
    """
    if lanes != "recursion":
        copies.write_copies(w, lanes)
    with w.function("solve", POINTERS, "images", inside=False) as a:
        h = w.record(Header, a["program"])
        w.clear(a["z"], h["cleared"])
        groups = a["images"].over(h["images"])
        with each_unit(w, a["shared"], groups * h["units"]) as taken:
            _unit(w, a | {"lines": lanes}, h, taken % groups, taken // groups)


def _unit(w: Writer, a: Arguments, h: Numbers, group: Int, unit: Int) -> None:
    """Write the work of one unit; ``group`` is the number of an image, or of a group of images."""
    image = group * h["images"]
    progress = group * h["units"] + unit + 1
    plane = image * h["channels"] * h["pixels"]
    a = a | {"image": image, "y": w.at(a["y"], plane), "x": w.at(a["x"], plane)}
    with w.loop(0, h["segments"]) as i:
        place = h["body"] + (unit * h["segments"] + i) * size(Segment)
        s = w.record(Segment, a["program"], place)
        w.clear(w.at(a["z"], s["clear"]), s["clear_count"])
        _wait(w, a["shared"], progress - 1, s["needed"])
        w.move(w.at(a["z"], s["move_to"]), w.at(a["z"], s["move_from"]), s["move_count"])
        _segment(w, a, h, s)
        with w.b.if_then(s["done"].is_(">", 0)):
            address = w.entries(a["shared"], progress)
            w.b.store_atomic(s["done"].value, w.typed(address, I64), "release", 8)


def _segment(w: Writer, a: Arguments, h: Numbers, s: Numbers) -> None:
    kind, images = a["lines"], (a["images"] - a["image"]).least(h["images"])
    if kind == "recursion":
        _solve_pixels(w, a, h, s, images)
        return
    copied = {
        "lines_there": images if kind == "images" else s["lines"],
        "channel_stride": h["pixels"],
        "places": w.entries(a["program"], h["places"]),
        "z": a["z"],
    }
    if kind == "channels":
        copied |= {
            "lines_there": h["channels"],
            "channel_stride": h["channels"] * h["pixels"],
            "channels": images,
            "lanes": h["channel_step"],
        }
    with w.b.if_then(s["needed"].is_(">", 0)):
        _ask_for_rows_above(w, a, h, s)
    w.call_inside("enter", h | s, lines=w.at(a["y"], s["memory"]), **copied)
    _rows_above(w, a, h, s)
    _solve_pixels(w, a, h, s, images)
    w.call_inside("leave", h | s, lines=w.at(a["x"], s["memory"]), **copied)


def _solve_pixels(w: Writer, a: Arguments, h: Numbers, s: Numbers, images: Int) -> None:
    diagonal = h["blocks"] * h["block"] * h["taps"] * h["channels"]
    flag = w.load(a["weights"], diagonal + h["channels"] * h["channels"], w.number)
    substitute = w.integer(w.b.zext(w.b.fcmp_ordered("!=", flag, w.number(0.0)), I64))
    first, step = order_of_channels(w, h)
    from_memory = a["lines"] == "recursion"
    given = {
        "z": a["y"] if from_memory else a["z"],
        "out": a["x"] if from_memory else a["z"],
        "w": a["weights"],
        "diagonal": w.at(a["weights"], diagonal),
        "spare": w.at(a["z"], h["spare"]),
        "lists": w.entries(a["program"], h["lists"] + s["lists"]),
        "keep": w.entries(a["program"], h["keep"] + s["keep"]),
        "substitute": substitute,
        "first": first,
        "order": step,
        "images": images,
    }
    w.call_outside(a["sums"], sums.SIGNATURE, h | s, **given)


def _ask_for_rows_above(w: Writer, a: Arguments, h: Numbers, s: Numbers) -> None:
    """Write prefetches of all rows above a strip, which another thread's cache may hold."""
    solved = w.at(a["x"], s["memory"])
    with (
        w.loop(1, h["above"] + 1) as up,
        w.loop(0, h["channels"]) as c,
        w.loop(0, s["count"], costs.LINE // w.itemsize) as level,
    ):
        column = (s["level"] + level + h["lag"] * up).least(h["width"] - 1)
        place = w.at(solved, _place_above(h, c, up, column))
        w.call("llvm.prefetch.p0", VOID, place, I32(0), I32(3), I32(1))


def _rows_above(w: Writer, a: Arguments, h: Numbers, s: Numbers) -> None:
    """Write the copy of the solved rows above a strip that its taps read.

    Positions before their start are zero already; positions behind their end are set to zero.
    """
    solved = w.at(a["x"], s["memory"])
    step = h["column_step"]
    with w.loop(1, h["above"] + 1) as up:
        start = s["level"] + h["lag"] * up  # the column of level 0
        first = (-start).most(s["low"]).least(s["count"])
        last = (h["width"] - start).most(first).least(s["count"])
        last = last.if_(s["first"].is_("!=", 0), first)
        with w.loop(0, h["channels"]) as c:
            there = w.at(a["z"], s["at"] + c * h["channel_step"] - up)
            with w.loop(first, last) as level:
                place = _place_above(h, c, up, start + level)
                w.store(w.load(solved, place, w.number), there, level * step)
            with w.loop(last, s["count"]) as level:
                w.store(w.number(0.0), there, level * step)


def _place_above(h: Numbers, channel: Int, up: Int, column: Int) -> Int:
    """Return the position in memory of a pixel above a strip, relative to the strip's first one."""
    in_memory = column.if_(h["along"].is_(">", 0), h["width"] - 1 - column)
    return channel * h["pixels"] + h["above_step"] * up + in_memory


@contextmanager
def each_unit(w: Writer, shared: Value, total: Int) -> Iterator[Int]:
    """Write the loop over the units that this thread takes; no two threads take the same one."""
    unit = w.new(w.b.atomic_rmw("add", shared, I64(1), "monotonic"))
    with w.loop(0, total):
        taken = unit.number
        with w.b.if_then(taken.is_("<", total)):
            yield taken
            unit.set(w.b.atomic_rmw("add", shared, I64(1), "monotonic"))


def _wait(w: Writer, shared: Value, place: Int, needed: Int) -> None:
    address = w.entries(shared, place)
    again, after = (w.b.function.append_basic_block() for _ in range(2))
    w.b.branch(again)
    w.b.position_at_end(again)
    done = w.integer(w.b.load_atomic(address, "acquire", 8, typ=I64))
    w.b.cbranch(done.is_("<", needed), again, after)
    w.b.position_at_end(after)
