"""Memory that the compiled kernel works in, full of NaN: no result rests on what it did not write.

All bits of a byte are ones, which makes NaN of every float32 and float64, and -1 of integers.
"""

from __future__ import annotations

from typing import Any

from invconv.kernels.cpu import compiled, handler
from invconv.kernels.cpu.compiler import frame as xla
from invconv.kernels.cpu.compiler.ir import I64, Writer

_take, _solve = compiled._Buffers.take, handler._solve


def fill() -> None:
    """Fill a thread's buffer before each use, and the memory that XLA gives the handler."""
    compiled._Buffers.take = _take_filled  # type: ignore[method-assign]
    handler._solve = _solve_filled


def _take_filled(buffers: Any, size: int) -> compiled.Buffer:
    address, memory = _take(buffers, size)
    memory.fill(-1)
    return address, memory


def _solve_filled(w: Writer, frame: Any, addresses: Any) -> None:
    """Write what fills the memory, up to the end of the state of the units, and the solve."""
    memory = xla.data(w, xla.result(w, frame, 1))
    place, words = (w.entry(xla.attribute(w, frame, 1), i) for i in (3, 4))
    with w.loop(0, place // 8 + words + handler.ALIGNED // 8) as i:
        w.b.store(I64(-1), w.b.gep(memory, [i.value], source_etype=I64))
    _solve(w, frame, addresses)
