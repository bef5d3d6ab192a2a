"""``invconv info``: which libraries are here, and what the core needs of one."""

from __future__ import annotations

import argparse
import importlib
import platform
from collections.abc import Iterator
from importlib import metadata

from rich import box
from rich.table import Table

import invconv
from invconv.arrays.registry import PRIMITIVES
from invconv.kernels.cpu import machine
from invconv.kernels.cpu.compiler.target import host
from invconv_conformance import printing
from invconv_conformance.libraries.requirements import required_functions
from invconv_conformance.libraries.table import LIBRARIES

_NARROW = ("Haswell", "Zen")  # OpenBLAS's kernels for AVX2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print what is installed and what is accelerated."""
    console = printing.console()
    console.print(
        f"invconv {invconv.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}"
    )
    with console.status("importing the libraries"):
        table = library_table()
    console.print(table)
    if (drop_ins := drop_in_table()).row_count:
        console.print(drop_ins)
    for library in LIBRARIES:
        if library.absent():
            continue
        native = [name for name, p in PRIMITIVES.items() if p.native(library.name)]
        if native:
            console.print(f"native primitives of {library.title}: {', '.join(native)}")
    console.print(f"autoregressive inverses on the CPU: {_kernel()}", highlight=False)
    for line in _kernels():
        console.print(line, highlight=False)
    for library in LIBRARIES:
        if library.absent() and library.extra:
            console.print(f"for {library.title}: pip install 'invconv\\[{library.extra}]'")
    console.print("What the core needs of a library (Python array API standard):")
    for extension, names in required_functions().items():
        title = f"extension {extension}" if extension else "standard"
        console.print(f"  [bold]{title}[/]: {', '.join(names)}", highlight=False)
    return 0


def _kernel() -> str:
    """Say which way autoregressive convolutions are solved in host memory, and why."""
    reason = machine.reason()
    if reason is not None:
        return f"wavefronts of matrix products, since {reason}".replace("[", "\\[")
    target = host()
    return (
        f"one compiled kernel (llvmlite {_version('llvmlite')}, {target.cpu}, "
        f"vectors of {target.bits} bits)"
    )


def _kernels() -> Iterator[str]:
    """Yield which kernels OpenBLAS took, if that can be told, and which it could have taken."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return
    pools = [pool for pool in threadpool_info() if pool["internal_api"] == "openblas"]
    for kernels in sorted({str(pool["architecture"]) for pool in pools}):
        yield f"OpenBLAS's kernels: {kernels}"
        if kernels in _NARROW and _wide_vectors():
            yield (
                "  this processor has AVX-512, which they do not use: with "
                "OPENBLAS_CORETYPE=SkylakeX in the environment, products may take half the time"
            )


def _wide_vectors() -> bool:
    """Tell whether the processor has all that OpenBLAS's kernels for AVX-512 use."""
    features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    return any(features.get(name, False) for name in ("AVX512_SKX", "X86_V4"))


def library_table() -> Table:
    """Return the table of libraries."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("library", "version", "devices", "dtypes"):
        table.add_column(column, overflow="fold")
    for library in LIBRARIES:
        reason = library.absent()
        if reason:
            table.add_row(library.title, "-", reason.partition(": ")[2], "")
            continue
        table.add_row(
            library.title,
            library.version,
            ", ".join(library.devices()),
            ", ".join(library.dtypes),
        )
    return table


def drop_in_table() -> Table:
    """Return the table of drop-ins for flow libraries, without importing those."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("flow library", "version", "drop-in"):
        table.add_column(column, overflow="fold")
    for adapter in ("invconv_torch", "invconv_jax"):
        try:
            interop = importlib.import_module(f"{adapter}.interop")
        except ImportError:
            continue  # the array library is absent, which the other table says
        for name, drop_in in interop.DROP_INS.items():
            table.add_row(drop_in.package, _version(drop_in.package), f"{adapter}.interop.{name}")
    return table


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
