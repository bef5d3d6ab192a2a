"""The kernels' handlers for XLA's foreign function interface (`compiler.frame`)."""

from collections.abc import Iterator
from contextlib import contextmanager

from invconv.kernels.cpu import costs, loop, propagation, recursive, weights
from invconv.kernels.cpu.compiler import frame as xla
from invconv.kernels.cpu.compiler.ir import I32, I64, VOID, Int, Value, Writer
from invconv.kernels.cpu.correlate import correlation


def write_handler(w: Writer, addresses: tuple[int, ...]) -> None:
    """Write the function "handler" of a call frame.

    Arguments of the custom call are the matrices (1 + T, C, C), or the weights computed from them,
    an array of one axis; and the images. Results are the images, and memory to work in. Attributes
    are the numbers of `cpu.program` and of `cpu.xla.CustomCall`.

    ``addresses`` are those of the compiled functions "prepare", "solve" and "sums".
    """
    with xla.handler(w) as frame, _denormal_numbers(w):
        _solve(w, frame, addresses)


def write_filter_handler(w: Writer, addresses: tuple[int, ...]) -> None:
    """Write the function "handler" of a call frame that filters signals.

    Arguments of the custom call are b, a, and z with x behind it in every row; the result is y with
    the last state behind it. The attribute has the first row and the end of the rows for each of
    the functions at these ``addresses``, and then the integers of `cpu.recursive` from "rows" on.
    """
    with xla.handler(w) as frame, _denormal_numbers(w):
        b, a, z = (xla.data(w, xla.array(w, frame, xla.ARGUMENTS, i)) for i in range(3))
        y, numbers = xla.data(w, xla.array(w, frame, xla.RESULTS, 0)), xla.attribute(w, frame, 0)
        names = recursive.SIGNATURE[1].split()[2:]
        given = {n: w.entry(numbers, 2 * len(addresses) + i) for i, n in enumerate(names)}
        x, last = w.at(z, given["x_block"] - given["length"]), w.at(y, given["length"])
        first = (given["length"] - 1).if_(given["x_time"].is_("<", 0), 0)
        x, y = w.at(x, first), w.at(y, first)
        given |= {"b": b, "a": a, "z": z, "x": x, "y": y, "last": last}
        for i, address in enumerate(addresses):
            rows = {"first": w.entry(numbers, 2 * i), "stop": w.entry(numbers, 2 * i + 1)}
            w.call_outside(w.address(address), recursive.SIGNATURE, **given, **rows)


def write_propagation_handler(w: Writer, address: int, shape: propagation.Recursion) -> None:
    """Write the function "handler" of a call frame that runs a recursion over images.

    Arguments of the custom call are taps and x, the attribute has the integers of the signature.
    """
    with xla.handler(w) as frame, _denormal_numbers(w):
        taps, x = (xla.data(w, xla.array(w, frame, xla.ARGUMENTS, i)) for i in range(2))
        h, numbers = xla.data(w, xla.array(w, frame, xla.RESULTS, 0)), xla.attribute(w, frame, 0)
        given = {n: w.entry(numbers, i) for i, n in enumerate(shape.signature[1].split())}
        given |= {"x": x, "taps": taps, "h": h, "gains": w.address(0)}
        w.call_outside(w.address(address), shape.signature, **given)


def write_correlation_handler(w: Writer, addresses: tuple[int, ...]) -> None:
    """Write the function "handler" of a call frame that correlates, or sums the gradient by taps.

    Arguments of the custom call are the taps (T, C, C) and the images x, or x and y_bar. Results
    are the images, or the gradient, and memory to work in. Attributes are the program; and the
    integers of `cpu.correlate.correlation`, with how many numbers the gradient has.

    ``addresses`` are those of the compiled functions "correlate" and "sums", or that of "gram".
    """
    with xla.handler(w) as frame, _denormal_numbers(w):
        a, b = (xla.data(w, xla.array(w, frame, xla.ARGUMENTS, i)) for i in range(2))
        result, memory = (xla.data(w, xla.array(w, frame, xla.RESULTS, i)) for i in range(2))
        program, room = (xla.attribute(w, frame, i) for i in range(2))
        shared, z = _in_lines(w, memory, w.integer(costs.LINE))
        names = correlation.INTEGERS.split()
        given = {name: w.entry(room, i) for i, name in enumerate(names)}
        function, given = w.address(addresses[0]), given | {"program": program, "z": z}
        if len(addresses) == 1:
            w.clear(result, w.entry(room, len(names)))
            w.call_outside(function, correlation.GRAM, x=a, y_bar=b, total=result, **given)
        else:
            w.clear(shared, w.integer(8 // w.itemsize))
            given |= {"shared": shared, "sums": w.address(addresses[1])}
            w.call_outside(function, correlation.SIGNATURE, taps=a, x=b, y=result, **given)


def _in_lines(w: Writer, memory: Value, *places: Int) -> list[Value]:
    """Return the address of the first whole line of working memory, and those of places in it."""
    start = w.integer(w.b.ptrtoint(memory, I64))
    first = start + (-start) % costs.LINE
    return [w.address(first), *(w.address(first + place) for place in places)]


def _solve(w: Writer, frame: Value, addresses: tuple[int, ...]) -> None:
    """Write the computation of the weights, unless they are given, and the solve."""
    prepare, solve, sums = addresses
    given, y = (xla.array(w, frame, xla.ARGUMENTS, i) for i in range(2))
    x, memory = (xla.array(w, frame, xla.RESULTS, i) for i in range(2))
    program, room = (xla.attribute(w, frame, i) for i in range(2))
    images, *places, words = (w.entry(room, i) for i in range(5))
    z, computed, scratch, shared = _in_lines(w, xla.data(w, memory), *places)
    to_make = w.entry(given, 4).is_("!=", 1)
    with w.b.if_then(to_make):
        arrays = {"matrices": xla.data(w, given), "weights": computed, "scratch": scratch}
        w.call_outside(w.address(prepare), (weights.POINTERS, ""), program=program, **arrays)
    w.clear(shared, words * (8 // w.itemsize))
    w.call_outside(
        w.address(solve),
        (loop.POINTERS, "images"),
        y=xla.data(w, y),
        x=xla.data(w, x),
        weights=w.b.select(to_make, computed, xla.data(w, given)),
        program=program,
        shared=shared,
        z=z,
        sums=w.address(sums),
        images=images,
    )


@contextmanager
def _denormal_numbers(w: Writer) -> Iterator[None]:
    """Write code that keeps denormal numbers: XLA sets the processor to flush them to zero."""
    if w.target.triple.startswith("x86_64"):
        register, flush = w.variable(I32), 1 << 15 | 1 << 6
        w.call("llvm.x86.sse.stmxcsr", VOID, register)
        mode, changed = w.b.load(register), w.variable(I32)
        w.b.store(w.b.and_(mode, I32(~flush)), changed)
        w.call("llvm.x86.sse.ldmxcsr", VOID, changed)
        yield
        w.call("llvm.x86.sse.ldmxcsr", VOID, register)
    elif w.target.triple.startswith(("aarch64", "arm64")):
        mode = w.call("llvm.aarch64.get.fpcr", I64)
        w.call("llvm.aarch64.set.fpcr", VOID, w.b.and_(mode, I64(~(1 << 24))))
        yield
        w.call("llvm.aarch64.set.fpcr", VOID, mode)
    else:
        yield
