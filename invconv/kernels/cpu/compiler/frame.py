"""XLA's foreign function interface, for functions that are written without a C compiler.

XLA calls a handler with the address of a record, the call frame, that points to arrays and
attributes. Handlers read these words of 64 bits of version 0 (xla/ffi/api/c_api.h in jaxlib):

    call frame   1 extension, 2 API, 3 context, 4 stage, 9 arguments, 14 results, 20 attributes
    extension    1 kind, 3 metadata          API        4 version, 6 make an error, 10 get a stream
    array        3 data, 4 number of axes    metadata   3 version, 4 traits
    attribute    1 how many numbers, 2 data

Arguments, results and attributes, by name, are arrays of addresses of such records; kinds, stages
and the code of an error have 32 bits. Asked for metadata, a handler answers with XLA's own version
and its traits. A handler returns null or an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from invconv.kernels.cpu.compiler.ir import I64, POINTER, Int, Value, Writer

_METADATA, _EXECUTE = 1, 3  # a kind of extension, and a stage
_API, _CONTEXT, ARGUMENTS, RESULTS, _ATTRIBUTES = 2, 3, 9, 14, 20
_MAKE_ERROR, _GET_STREAM = 6, 10
_INTERNAL = 13  # the code of an error
_LOW = 2**32  # a number of 32 bits is the rest of its word by this
RECORDABLE = 1  # a trait: a command buffer, such as a CUDA graph, may record the call


@contextmanager
def handler(w: Writer, traits: int = 0) -> Iterator[Value]:
    """Write the function "handler", of a call frame, inside this context."""
    with w.function("handler", "frame", inside=False, result=POINTER) as a:
        frame, extended = a["frame"], w.entry(a["frame"], 1).is_("!=", 0)
        with w.b.if_else(extended) as (then, otherwise):
            with then:
                extension = w.link(frame, 1)
                with w.b.if_then((w.entry(extension, 1) % _LOW).is_("==", _METADATA)):
                    metadata, version = w.link(extension, 3), w.entry(w.link(frame, _API), 4)
                    put(w, metadata, 3, version)
                    put(w, metadata, 4, w.integer(traits))
            with otherwise, w.b.if_then((w.entry(frame, 4) % _LOW).is_("==", _EXECUTE)):
                yield frame


def array(w: Writer, frame: Value, kind: int, place: int) -> Value:
    """Return the record of one of the `ARGUMENTS`, or of the `RESULTS`."""
    return w.link(w.link(frame, kind), place)


def attribute(w: Writer, frame: Value, place: int) -> Value:
    """Return the address of an attribute's numbers."""
    return w.link(w.link(w.link(frame, _ATTRIBUTES), place), 2)


def data(w: Writer, array: Value) -> Value:
    """Return the address of an array's numbers."""
    return w.link(array, 3)


def stream(w: Writer, frame: Value) -> Value:
    """Return the stream of the call; if XLA has none, the handler returns XLA's error."""
    known = _record(w, 4 * 8, w.integer(0), w.entry(frame, _CONTEXT), w.integer(0))
    error = _ask(w, frame, _GET_STREAM, known)
    with w.b.if_then(w.integer(w.b.ptrtoint(error, I64)).is_("!=", 0)):
        w.b.ret(error)
    return w.link(known, 3)


def fail(w: Writer, frame: Value, message: Value) -> None:
    """Return an error from the handler; XLA copies the zero-terminated message."""
    text = w.integer(w.b.ptrtoint(message, I64))
    w.b.ret(_ask(w, frame, _MAKE_ERROR, _record(w, 4 * 8, w.integer(0), text, _INTERNAL)))


def put(w: Writer, record: Value, place: int, number: Int) -> None:
    """Set a word of a record."""
    w.b.store(number.value, w.b.gep(record, [I64(place)], source_etype=I64))


def memory(w: Writer, kind: Any, count: int) -> Value:
    """Return the address of a new local array."""
    return w.address(w.b.ptrtoint(w.variable(ir.ArrayType(kind, count)), I64))


def _record(w: Writer, *words: Int | int) -> Value:
    record = memory(w, I64, len(words))
    for place, word in enumerate(words):
        put(w, record, place, w.integer(word))
    return record


def _ask(w: Writer, frame: Value, place: int, record: Value) -> Value:
    """Call a function of XLA's, and return the error that it returns, or null."""
    kind = ir.FunctionType(POINTER, [record.type])
    function = w.entry(w.link(frame, _API), place)
    return w.b.call(w.b.inttoptr(function.value, kind.as_pointer()), [record])
