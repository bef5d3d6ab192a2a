"""A handler for XLA's foreign function interface that launches kernels: no Python in the call.

The handler asks XLA for the stream of the call, and the driver for the context of the stream; every
device has its own context. It queues the launches with their numbers by value, and keeps nothing
for the next call, so it tells XLA that a CUDA graph may record it; that was never tried on a
device. `invconv.kernels.cpu.compiler.frame` has the calling convention.
"""

from collections.abc import Mapping

from llvmlite import ir

from invconv.kernels.cpu.compiler import frame as xla
from invconv.kernels.cpu.compiler.ir import I8, I32, I64, POINTER, Int, Value, Writer
from invconv.kernels.cuda.plan import GRID, POINTERS

SIZES = ("blocks", "threads", "shared", "counters")
ROW = len(SIZES) + len(GRID)  # 32-bit ints of a launch: its sizes, then the struct
DRIVER = (
    "cuStreamGetCtx",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuMemsetD32Async",
    "cuLaunchKernel",
)

_ERROR = "invconv: the CUDA driver refuses a launch, error "


def write_handler(
    w: Writer, addresses: Mapping[str, int], kernels: Mapping[str, int], arrays: Mapping[str, int]
) -> None:
    """Write the function "handler" of a call frame, which launches kernels one after the other.

    Its only attribute has a row of `ROW` ints for each kernel.

    ``addresses`` are those of the driver's functions `DRIVER`. ``kernels`` are handles, in the
    order of the launches, by the names in `POINTERS`. ``arrays`` has the position of each array: i
    for argument i, and -1 - i for result i.
    """
    with xla.handler(w, xla.RECORDABLE) as frame:
        driver = _Driver(w, frame, addresses)
        stream, rows = xla.stream(w, frame), xla.attribute(w, frame, 0)
        data = {}
        for name, place in arrays.items():
            position = (xla.ARGUMENTS, place) if place >= 0 else (xla.RESULTS, -1 - place)
            data[name] = xla.data(w, xla.array(w, frame, *position))
        context = w.variable(POINTER)
        driver.call("cuStreamGetCtx", stream, context)
        driver.call("cuCtxPushCurrent_v2", w.b.load(context))
        driver.pushed = True
        for i, (name, handle) in enumerate(kernels.items()):
            row = w.b.gep(rows, [I64(i * ROW)], source_etype=I32)
            _launch(driver, handle, row, [data[n] for n in POINTERS[name]], stream)
        driver.pop()


def _launch(
    driver: "_Driver", handle: int, row: Value, pointers: list[Value], stream: Value
) -> None:
    """Write a launch; counters, if it has any, are the last of the pointers."""
    w = driver.w
    places = [w.b.gep(row, [I64(i)], source_etype=I32) for i in range(len(SIZES) + 1)]
    *sizes, counters = (w.b.load(place, typ=I32) for place in places[:-1])
    with w.b.if_then(w.b.icmp_signed("!=", counters, I32(0))):
        driver.call("cuMemsetD32Async", pointers[-1], I32(0), w.b.zext(counters, I64), stream)
    arguments = xla.memory(w, POINTER, len(pointers) + 1)
    for i, pointer in enumerate(pointers):
        place = w.variable(POINTER)
        w.b.store(pointer, place)
        w.b.store(place, w.b.gep(arguments, [I64(i)], source_etype=POINTER))
    w.b.store(places[-1], w.b.gep(arguments, [I64(len(pointers))], source_etype=POINTER))
    blocks, threads, shared = sizes
    one = I32(1)
    driver.call(
        "cuLaunchKernel",
        w.address(handle),
        *(blocks, one, one),
        *(threads, one, one),
        *(shared, stream, arguments, ir.Constant(POINTER, None)),
    )


class _Driver:
    """Writer of calls of the driver; the handler returns an error if a call fails."""

    def __init__(self, w: Writer, frame: Value, addresses: Mapping[str, int]) -> None:
        self.w, self.frame, self.addresses = w, frame, addresses
        self.pushed = False

    def call(self, name: str, *arguments: Value) -> None:
        b, code = self.w.b, self._call(name, *arguments)
        with b.if_then(b.icmp_signed("!=", code, I32(0))):
            if self.pushed:
                self.pop()
            xla.fail(self.w, self.frame, self._message(self.w.integer(b.zext(code, I64))))

    def pop(self) -> None:
        self._call("cuCtxPopCurrent_v2", self.w.variable(POINTER))

    def _call(self, name: str, *arguments: Value) -> Value:
        kind = ir.FunctionType(I32, [a.type for a in arguments])
        function = self.w.b.inttoptr(I64(self.addresses[name]), kind.as_pointer())
        return self.w.b.call(function, arguments)

    def _message(self, code: Int) -> Value:
        """Return the address of the error's text, with the three digits of a code."""
        text = bytearray(_ERROR.encode() + b"000\0")
        kind = ir.ArrayType(I8, len(text))
        place = xla.memory(self.w, I8, len(text))
        self.w.b.store(ir.Constant(kind, text), self.w.typed(place, kind))
        for i, ten in enumerate((100, 10, 1)):
            digit = self.w.b.trunc((code // ten % 10 + ord("0")).value, I8)
            at = self.w.b.gep(place, [I64(len(_ERROR) + i)], source_etype=I8)
            self.w.b.store(digit, at)
        return place
