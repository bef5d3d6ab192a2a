"""``invconv info``: the libraries that are here, and the functions that the core needs."""

import argparse
import importlib
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata

import invconv
from invconv.arrays.registry import PRIMITIVES
from invconv.kernels.cpu import machine
from invconv.kernels.cpu.compiler.target import host
from invconv_conformance.libraries import LIBRARIES, required_functions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print what is installed and what is accelerated."""
    system = f"{platform.system()} {platform.machine()}"
    print(f"invconv {invconv.__version__}, Python {platform.python_version()}, {system}")
    _print_table(("library", "version", "devices", "dtypes"), list(_libraries()))
    _print_table(("flow library", "version", "drop-in"), list(_drop_ins()))
    for library in LIBRARIES:
        if library.absent():
            continue  # its adapter cannot be imported
        if native := [name for name, p in PRIMITIVES.items() if p.native(library.name)]:
            print(f"native primitives of {library.title}: {', '.join(native)}")
    print(f"autoregressive inverses on the CPU: {_kernel()}")
    for library in LIBRARIES:
        if library.absent() and library.extra:
            print(f"for {library.title}: pip install 'invconv[{library.extra}]'")
    print("What the core needs of a library (Python array API standard):")
    for extension, names in required_functions().items():
        print(f"  {f'extension {extension}' if extension else 'standard'}: {', '.join(names)}")
    return 0


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head, without a package for tables; nothing without rows."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows) if rows else ():
        print(" ", "  ".join(map(str.ljust, row, widths)).rstrip())


def _kernel() -> str:
    if (reason := machine.reason()) is not None:
        return f"wavefronts of matrix products, since {reason}"
    there = f"llvmlite {version('llvmlite')}, {host().cpu}, vectors of {host().bits} bits"
    return f"one compiled kernel ({there})"


def _libraries() -> Iterator[tuple[str, str, str, str]]:
    for library in LIBRARIES:
        if reason := library.absent():
            yield library.title, "-", reason.partition(": ")[2], ""
        else:
            devices, dtypes = ", ".join(library.devices()), ", ".join(library.dtypes)
            yield library.title, library.version, devices, dtypes


def _drop_ins() -> Iterator[tuple[str, str, str]]:
    for adapter in ("invconv_torch", "invconv_jax"):
        try:
            interop = importlib.import_module(f"{adapter}.interop")
        except ImportError:
            continue  # the array library is absent, which the other table says
        for name, (_, package) in interop.DROP_INS.items():
            yield package, version(package), f"{adapter}.interop.{name}"


def version(package: str) -> str:
    """Return the version of a distribution that is installed, or say that none is."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
