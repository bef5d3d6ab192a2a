"""Memory that the compiled kernels work in, full of NaN: a result that rests on it is NaN, too."""

from __future__ import annotations

from typing import Any

from invconv.kernels.cpu import compiled, handler
from invconv.kernels.cpu.compiler import frame as xla
from invconv.kernels.cpu.compiler.integers import I64
from invconv.kernels.cpu.compiler.ir import Writer

# 64 bits that are NaN as float64 and as two of float32, and as a ticket leave no unit to take
_NAN = 0x7FFFFFFF7FFFFFFF
_take, _solve = compiled._Buffers.take, handler._solve


def fill() -> None:
    """Fill a thread's buffer before each use, and the memory that XLA gives the handler."""
    compiled._Buffers.take = _take_filled  # type: ignore[assignment,method-assign]
    handler._solve = _solve_filled


def _take_filled(buffers: compiled._Buffers, size: int) -> compiled.Buffer:
    address, memory = _take(buffers, size)
    memory.fill(-1)  # all bits: NaN of either dtype
    return address, memory


def _solve_filled(w: Writer, frame: Any, addresses: Any) -> None:
    """Write what fills the memory, up to the end of the state of the units, and the solve."""
    memory = xla.data(w, xla.array(w, frame, xla.RESULTS, 1))
    place, words = (w.entry(xla.attribute(w, frame, 1), i) for i in (3, 4))
    with w.loop(0, place // 8 + words + handler.ALIGNED // 8) as i:
        w.b.store(I64(_NAN), w.b.gep(memory, [i.value], source_etype=I64))
    _solve(w, frame, addresses)
