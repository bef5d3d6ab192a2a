"""Many calls of BLAS in one call from Python: a loop in machine code, which llvmlite compiles.

A call through ctypes takes longer than a small product, and each waits for the interpreter's lock,
so that threads of Python could not share out a wave's products. The loop needs no lock:

    for (i = thread; i < count; i += threads)       share: the parts of a program, among threads
        for (call in parts[i])                      run: one after the other
            call.function(call.argument[0], ..., call.argument[12])

Where llvmlite is not installed, the calls are made one by one.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Call = Callable[[], object]

_ARGUMENTS = 13  # of gemm, all of them addresses
_OLDEST = (0, 45)  # llvmlite, as in pyproject.toml
STEP_BYTES = 8 * (1 + _ARGUMENTS)  # of the addresses of a call
_LOAD = """
  %p{0} = getelementptr %call, ptr %call, i64 0, i32 1, i64 {0}
  %a{0} = load ptr, ptr %p{0}"""
_LOADS = "".join(map(_LOAD.format, range(_ARGUMENTS)))
_LOADED = ", ".join(f"ptr %a{n}" for n in range(_ARGUMENTS))
_LOOPS = f"""
%call = type {{ ptr, [{_ARGUMENTS} x ptr] }}
%part = type {{ ptr, i64 }}
%program = type {{ ptr, ptr, i64, [0 x %part] }}

define void @run(ptr %calls, i64 %count) {{
  br label %next
next:
  %i = phi i64 [ 0, %0 ], [ %after, %make ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %make, label %done
make:
  %call = getelementptr %call, ptr %calls, i64 %i
  %function = load ptr, ptr %call{_LOADS}
  call void %function({_LOADED})
  %after = add i64 %i, 1
  br label %next
done:
  ret void
}}

define void @share(ptr %program) {{
  %p_thread = getelementptr %program, ptr %program, i64 0, i32 0
  %p_threads = getelementptr %program, ptr %program, i64 0, i32 1
  %p_count = getelementptr %program, ptr %program, i64 0, i32 2
  %f_thread = load ptr, ptr %p_thread
  %f_threads = load ptr, ptr %p_threads
  %count = load i64, ptr %p_count
  %thread_32 = call i32 %f_thread()
  %threads_32 = call i32 %f_threads()
  %thread = sext i32 %thread_32 to i64
  %threads = sext i32 %threads_32 to i64
  br label %next
next:
  %i = phi i64 [ %thread, %0 ], [ %after, %make ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %make, label %done
make:
  %p_calls = getelementptr %program, ptr %program, i64 0, i32 3, i64 %i, i32 0
  %p_length = getelementptr %program, ptr %program, i64 0, i32 3, i64 %i, i32 1
  %calls = load ptr, ptr %p_calls
  %length = load i64, ptr %p_length
  call void @run(ptr %calls, i64 %length)
  %after = add i64 %i, %threads
  br label %next
done:
  ret void
}}
"""


class Loops(NamedTuple):
    """The loops: over calls, and over the parts of a program; with what keeps their code."""

    run: Any
    share: int
    engine: Any


@functools.cache
def loops() -> Loops | None:
    """Compile the loops, which takes some milliseconds; return None where llvmlite is not there."""
    if sys.maxsize < 2**63 - 1 or not _may_make_code():  # they are for addresses of 64 bits
        return None
    try:
        return _compiled()
    except Exception:  # whatever it is: do without
        return None


def _compiled() -> Loops:
    import llvmlite
    from llvmlite import binding

    if tuple(map(int, llvmlite.__version__.split(".")[:2])) < _OLDEST:
        raise ImportError(f"llvmlite {llvmlite.__version__} reads other code")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    code = binding.parse_assembly(_LOOPS)
    machine = binding.Target.from_default_triple().create_target_machine(opt=2)
    engine = binding.create_mcjit_compiler(code, machine)
    engine.finalize_object()
    run, share = (engine.get_function_address(name) for name in ("run", "share"))
    return Loops(ctypes.CFUNCTYPE(None)(run), share, engine)


def _may_make_code() -> bool:
    """Tell whether memory that was written to may be executed: some systems forbid it.

    LLVM would not tell.
    """
    try:
        mprotect = ctypes.CDLL(None).mprotect
    except (OSError, AttributeError, TypeError):  # not where systems have none
        return True
    page = mmap.mmap(-1, mmap.PAGESIZE)
    start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    read_and_execute = 1 | 4
    return bool(mprotect(start, ctypes.c_size_t(mmap.PAGESIZE), read_and_execute) == 0)


class Step(functools.partial[object]):
    """A call of a function of ctypes with 13 addresses, which a loop can make.

    Attributes
    ----------
    reads : tuple
        What is at these addresses, and lives as long as this.
    """

    reads: tuple[Any, ...]

    @classmethod
    def of(cls, function: Any, arguments: Sequence[int], reads: tuple[Any, ...]) -> Step:
        """Return the call."""
        made = cls(function, *map(ctypes.c_void_p, arguments))
        made.reads = reads
        return made

    @property
    def addresses(self) -> tuple[int, ...]:
        """Those of the function and of what it takes."""
        return (address(self.func), *(argument.value for argument in self.args))


class Steps(NamedTuple):
    """A step that is made many times, each time with other addresses.

    Attributes
    ----------
    step : Step
    shifts : dict of int to array of int64, shape (n,)
        What is added to some of its arguments.
    given : int
        Which of its arguments are in an array that each run gives, and start where it does.
    """

    step: Step
    shifts: dict[int, np.ndarray[Any, Any]]
    given: int

    @property
    def times(self) -> int:
        """How many times."""
        return len(self.shifts[self.given])

    def table(self) -> np.ndarray[Any, Any]:
        """Return the addresses of all calls."""
        table = np.tile(np.asarray(self.step.addresses, np.int64), (self.times, 1))
        for argument, shifts in self.shifts.items():
            table[:, 1 + argument] += shifts
        return table


def in_turn(calls: list[Call]) -> list[Call]:
    """Return calls that do the same, in the same order: of the steps that follow each other, one.

    It is not to be made by two threads at once.
    """
    found = loops()
    if found is None:
        return calls
    joined = list[Call]()
    for native, group in itertools.groupby(calls, lambda call: isinstance(call, Step)):
        some: list[Any] = list(group)
        if native and len(some) > 1:
            table = table_of(some)
            length = ctypes.c_int64(len(some))
            joined.append(keeping(found.run, [pointer(table), length], [found, table, some]))
        else:
            joined += some
    return joined


def keeping(function: Any, arguments: list[Any], reads: list[Any]) -> Call:
    """Return the call of a function, and let live what is at the addresses that it takes."""
    call = functools.partial(function, *arguments)
    call.reads = reads  # type: ignore[attr-defined]
    return call


def table_of(steps: Sequence[Step | Steps]) -> np.ndarray[Any, Any]:
    """Return the addresses of calls, in order, as int64 of shape (n, 14)."""
    rows = [
        np.asarray(step.addresses, np.int64)[None] if isinstance(step, Step) else step.table()
        for step in steps
    ]
    return np.concatenate(rows)


def pointer(table: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    """Return the address of an array."""
    return ctypes.c_void_p(table.ctypes.data)


def address(function: Any) -> int:
    """Return that of a function of ctypes."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0
