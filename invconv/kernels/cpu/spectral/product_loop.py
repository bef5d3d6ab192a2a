"""The loop of a product with a matrix per frequency: images in the lanes, channel after channel."""

from invconv.kernels.cpu.compiler.integers import POINTER, Arguments, Int, Numbers, Value
from invconv.kernels.cpu.compiler.ir import Writer
from invconv.kernels.cpu.copies import write_copies
from invconv.kernels.cpu.loop import each_unit
from invconv.kernels.cpu.program import size
from invconv.kernels.cpu.spectral.product_program import OUTPUT, Header, Stage
from invconv.kernels.cpu.sums import SIGNATURE

POINTERS = "y x transforms weights program shared z"


def write_product(w: Writer) -> None:
    """Write the function "product" of `POINTERS` and the number of images.

    ``transforms`` and ``weights`` are the matrices of the axes and of the frequencies. The other
    arguments are as for "solve" of `invconv.kernels.cpu.loop`.
    """
    write_copies(w, "wholes")
    with w.function("product", POINTERS, "images", inside=False) as a:
        h = w.record(Header, a["program"])
        with each_unit(w, a["shared"], a["images"].over(w.lanes)) as taken:
            a["image"] = taken * w.lanes
            with w.loop(0, h["channels"]) as c:
                plane = w.at(a["z"], c * h["channel_step"])
                _copy(w, a, h, "enter", a["y"], c, plane)
                _transform(w, a, h, plane, 0)
                with w.loop(0, h["pairs"]) as i:
                    _turn(w, a, plane, h["paired"] + i * 2, 0)
            _multiply(w, a, h)
            with w.loop(0, h["channels"]) as c:
                plane = w.at(a["z"], h["step"] + c * h["channel_step"])
                with w.loop(0, h["pairs"]) as i:
                    _turn(w, a, plane, h["paired"] + (h["pairs"] - 1 - i) * 2, 1)
                _transform(w, a, h, plane, h["back"])
                _copy(w, a, h, "leave", a["x"], c, plane)


def _copy(
    w: Writer, a: Arguments, h: Numbers, way: str, images: Value, c: Int, plane: Value
) -> None:
    w.call_inside(
        way,
        lines=w.at(images, (a["image"] * h["channels"] + c) * h["pixels"]),
        z=plane,
        step=w.lanes,
        lines_there=(a["images"] - a["image"]).least(w.lanes),
        line_step=h["channels"] * h["pixels"],
        count=h["pixels"],
        width=h["pixels"],
        channels=1,
    )


def _transform(w: Writer, a: Arguments, h: Numbers, plane: Value, first: Int | int) -> None:
    with w.loop(0, h["stages"]) as i:
        s = w.record(Stage, a["program"], h["axes"] + i * size(Stage))
        given = {
            "z": plane,
            "out": plane,
            "w": w.at(a["transforms"], s["weights"] + first),
            "spare": w.at(a["z"], h["spare"]),
            "lists": w.entries(a["program"], h["one"]),
            "column_step": w.lanes,
            "taps": 1,
        }
        w.call_outside(w.b.inttoptr(s["sums"].value, POINTER), SIGNATURE, **s | given)


def _turn(w: Writer, a: Arguments, plane: Value, start: Int, first: int) -> None:
    """Write (u, v) -> (u - v, u + v) for a pair of places; u is the one with index ``first``."""
    places = [w.entry(a["program"], start + i) for i in (first, 1 - first)]
    u, v = (w.load(plane, place) for place in places)
    w.store(w.b.fsub(u, v), plane, places[0])
    w.store(w.b.fadd(u, v), plane, places[1])


def _multiply(w: Writer, a: Arguments, h: Numbers) -> None:
    """Write the product with a matrix per frequency, from the buffer's first half to the second."""
    function = w.b.inttoptr(h["sums"].value, POINTER)
    with w.loop(0, h["outputs"]) as i:
        start = h["multiplied"] + i * OUTPUT
        here, taps, weights = (w.entry(a["program"], start + k) for k in range(3))
        given = {
            "z": a["z"],
            "out": w.at(a["z"], h["step"]),
            "w": w.at(a["weights"], weights),
            "spare": w.at(a["z"], h["spare"]),
            "lists": w.entries(a["program"], start + 3),
            "at": here,
            "rows": 1,
            "columns": 1,
            "taps": taps,
        }
        w.call_outside(function, SIGNATURE, **h | given)
