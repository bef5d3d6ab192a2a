"""Compile the kernel to machine code by llvmlite; `reason` says why that is impossible."""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from invconv.arrays.errors import release
from invconv.kernels.cpu.compiler.target import Target, host

OLDEST = "0.45"  # llvmlite, as in pyproject.toml


@dataclass(frozen=True, eq=False)
class Code:
    """A compiled function of addresses and integers."""

    address: int
    count: int  # of its arguments
    engine: Any  # the owner of the code's memory

    @functools.cached_property
    def call(self) -> Callable[..., None]:
        """The function, for Python; ctypes takes integers the quickest as addresses."""
        return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * self.count)(self.address)


@functools.cache
def reason(itemsize: int = 4) -> str | None:
    """Return why no kernel runs here for numbers of so many bytes, or None if one does."""
    if itemsize not in (4, 8):
        return f"the kernel is for float32 and float64, not for numbers of {itemsize} bytes"
    if sys.maxsize < 2**63 - 1:
        return "this Python has addresses of 32 bits"
    if sys.byteorder != "little":
        return "this processor puts the highest byte first"
    if not _may_make_code():
        return "this system forbids new machine code"
    try:
        import llvmlite

        if release(llvmlite.__version__) < release(OLDEST):
            return f"llvmlite {llvmlite.__version__} is too old: {OLDEST} is the oldest that serves"
        prepare(host(), itemsize)
    except ImportError:
        return "llvmlite is not installed: pip install llvmlite"
    except Exception as error:  # LLVM may not know a processor: then the plain wavefront runs
        return f"llvmlite could not compile for this processor: {error}"
    return None


def _may_make_code() -> bool:
    """Tell whether this system lets code be written and executed; LLVM does not report it."""
    try:
        mprotect = ctypes.CDLL(None).mprotect
    except (OSError, AttributeError, TypeError):  # a system without mprotect
        return True
    page = mmap.mmap(-1, mmap.PAGESIZE)
    start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    read_and_execute = 1 | 4
    return bool(mprotect(start, ctypes.c_size_t(mmap.PAGESIZE), read_and_execute) == 0)


@functools.lru_cache(maxsize=512)
def compiled(
    target: Target, itemsize: int, write: Any, *settings: Any, thorough: bool = False
) -> Code:
    """Compile a module that ``write(writer, *settings)`` writes; return the function outside."""
    from llvmlite import binding

    from invconv.kernels.cpu.compiler.ir import Writer

    writer = Writer(target, itemsize)
    write(writer, *settings)
    module = binding.parse_assembly(str(writer.module))
    engine = binding.create_mcjit_compiler(module, optimised(module, target, thorough=thorough))
    engine.finalize_object()
    (main,) = (f for f in writer.module.functions if f.blocks and f.linkage != "internal")
    return Code(engine.get_function_address(main.name), len(main.args), engine)


@functools.cache
def prepare(target: Target, itemsize: int) -> Code:
    """Compile the function "prepare", which computes the weights."""
    from invconv.kernels.cpu.weights import write_weights

    return compiled(target, itemsize, write_weights)


def solve(target: Target, itemsize: int, way: str) -> Code:
    """Compile "solve" for lanes that a module of `cpu.lanes` assigns, without the sums."""
    from invconv.kernels.cpu.loop import write_solve

    return compiled(target, itemsize, write_solve, way)


def sums(target: Target, itemsize: int, way: str, *settings: int) -> Code:
    """Compile the sums for these lanes; for images or rows, of a block of output channels."""
    from invconv.kernels.cpu.sums import write_channel_sums, write_recursion, write_sums

    others: Any = {"channels": write_channel_sums, "recursion": write_recursion}
    return compiled(target, itemsize, others.get(way, write_sums), *settings, thorough=True)


def optimised(module: Any, target: Target, *, thorough: bool) -> Any:
    """Optimise a module in place, and return the target machine.

    Straight code, such as the copies, only needs its variables put into registers; further passes
    over so much code take long. Short loops are worth LLVM's whole pipeline: ``thorough``.
    """
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2 if thorough else 1
    )
    builder = binding.create_pass_builder(machine, binding.PipelineTuningOptions(speed_level=2))
    if thorough:
        passes = builder.getModulePassManager()
    else:
        passes = binding.create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
    passes.run(module, builder)
    return machine
