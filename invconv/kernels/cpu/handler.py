"""The kernel's handler for XLA's foreign function interface, which takes no compiler of C.

XLA calls it with the address of a record, the call frame, that leads to arrays and attributes. This
is what is read of version 0 (xla/ffi/api/c_api.h, which comes with jaxlib), in words of 64 bits:

    call frame   1 extension, 2 API, 4 stage, 9 arguments, 14 results, 20 attributes
    extension    1 kind, 3 metadata          API        4 version
    array        3 data, 4 number of axes    metadata   3 version, 4 traits
    attribute    2 data

Arguments, results and attributes are arrays of addresses of such records; kinds and stages have 32
bits. Asked for metadata, the handler answers that it speaks XLA's version and has no traits.

Called by `xla`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from llvmlite import ir

from invconv.kernels.cpu import driver
from invconv.kernels.cpu.compiler.ir import I32, I64, POINTER, VOID, Int, Value, Writer

ALIGNED = 64  # bytes: vectors do not lie across two lines of the cache

_METADATA, _EXECUTE = 1, 3  # a kind of extension, and a stage


def write_handler(w: Writer, addresses: Mapping[str, int]) -> None:
    """Write the function "handler" of a call frame.

    Arguments of the custom call are the matrices (1 + T, C, C), or the weights that were made of
    them, an array of one axis; and the images. Results are the images, and memory to work in.
    Attributes are the numbers of `cpu.program` and of `cpu.xla.Call`.

    Parameters
    ----------
    w : Writer
    addresses : dict of str to int
        Of the compiled functions "prepare", "solve" and "sums".
    """
    with w.function("handler", ("frame",), inside=False, result=POINTER) as a:
        frame, extended = a["frame"], w.entry(a["frame"], 1).is_("!=", 0)
        with w.b.if_else(extended, likely=False) as (then, otherwise):
            with then:
                extension = w.link(frame, 1)
                with w.b.if_then(_short(w, extension, 1).is_("==", _METADATA)):
                    metadata, version = w.link(extension, 3), w.entry(w.link(frame, 2), 4)
                    _put(w, metadata, 3, version)
                    _put(w, metadata, 4, w.integer(0))
            with (
                otherwise,
                w.b.if_then(_short(w, frame, 4).is_("==", _EXECUTE)),
                _denormal_numbers(w),
            ):
                _solve(w, frame, addresses)


def _solve(w: Writer, frame: Value, addresses: Mapping[str, int]) -> None:
    """Write the making of weights, if there are none, and the solve."""
    (given, y), (x, memory) = (
        [w.link(w.link(frame, kind), i) for i in range(2)] for kind in (9, 14)
    )
    program, room = (w.link(w.link(w.link(frame, 20), i), 2) for i in range(2))
    images, *places, words = (w.entry(room, i) for i in range(5))
    start = w.integer(w.b.ptrtoint(w.link(memory, 3), I64))
    z = start + (-start) % ALIGNED
    made, scratch, shared = (_address(w, z + place) for place in places)
    weights = w.variable(POINTER)
    w.b.store(w.link(given, 3), weights)
    with w.b.if_then(w.entry(given, 4).is_("!=", 1)):
        _call(w, addresses["prepare"], w.link(given, 3), made, program, scratch)
        w.b.store(made, weights)
    w.clear(shared, words * (8 // w.itemsize))
    arrays = w.link(y, 3), w.link(x, 3), w.b.load(weights, typ=POINTER)
    known = dict(zip(driver.POINTERS, (*arrays, program, shared, _address(w, z)), strict=False))
    known["sums"] = _address(w, w.integer(addresses["sums"]))
    _call(w, addresses["solve"], *known.values(), images.value)


@contextmanager
def _denormal_numbers(w: Writer) -> Iterator[None]:
    """Write code in which numbers near zero are as elsewhere: XLA has the processor flush them."""
    if w.target.triple.startswith("x86_64"):
        register, flush = w.variable(I32), 1 << 15 | 1 << 6
        w.call("llvm.x86.sse.stmxcsr", VOID, register)
        found, changed = w.b.load(register, typ=I32), w.variable(I32)
        w.b.store(w.b.and_(found, I32(~flush)), changed)
        w.call("llvm.x86.sse.ldmxcsr", VOID, changed)
        yield
        w.call("llvm.x86.sse.ldmxcsr", VOID, register)
    elif w.target.triple.startswith(("aarch64", "arm64")):
        found = w.call("llvm.aarch64.get.fpcr", I64)
        w.call("llvm.aarch64.set.fpcr", VOID, w.b.and_(found, I64(~(1 << 24))))
        yield
        w.call("llvm.aarch64.set.fpcr", VOID, found)
    else:
        yield


def _call(w: Writer, address: int, *arguments: Value) -> None:
    """Write the call of a compiled function."""
    kind = ir.FunctionType(VOID, [a.type for a in arguments])
    w.b.call(w.b.inttoptr(I64(address), kind.as_pointer()), arguments)


def _short(w: Writer, record: Value, place: int) -> Int:
    """Return the number of 32 bits at a word; what follows it is undefined."""
    return w.entry(record, place) % 2**32


def _put(w: Writer, record: Value, place: int, number: Int) -> None:
    w.b.store(number.value, w.b.gep(record, [I64(place)], source_etype=I64))


def _address(w: Writer, number: Int) -> Value:
    return w.b.inttoptr(number.value, POINTER)
