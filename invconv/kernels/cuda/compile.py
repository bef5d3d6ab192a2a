"""Compile the sources to machine code by NVRTC: no device, no driver and no nvcc are needed.

NVRTC comes with the wheels `nvidia-cuda-nvrtc` (which torch's wheels for CUDA require), conda's
`cuda-nvrtc` or a CUDA toolkit. It is loaded here by ctypes. The text is the constants of a plan as
macros, then the source files of this folder.
"""

import ctypes
import functools
import itertools
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invconv.kernels.cuda.plan import Constants

FILES = ("common.cuh", "weights.cu", "solve.cu")


@functools.cache
def sources() -> dict[str, str]:
    """Return the text of each source, by the name of its file."""
    return {name: Path(__file__).with_name(name).read_text("utf-8") for name in FILES}


def source(constants: Constants, texts: dict[str, str] | None = None) -> str:
    """Return the whole text for a plan's constants; ``texts`` are compiled instead of `sources`."""
    macros = [f"#define {name} {value}" for name, value in constants]
    parts = [f'#line 1 "{name}"\n{text}' for name, text in (texts or sources()).items()]
    return "\n".join([*macros, *parts])


# the sources call fma themselves, so the compiler must not fuse; the other options are the defaults
OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true")
_NAMES = "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", "nvrtc64_130_0.dll", "nvrtc64_120_0.dll"


@dataclass(frozen=True)
class DeviceCode:
    """Machine code of a module with the functions "fold", "decide" and "solve"."""

    image: bytes  # a cubin, or PTX, zero at its end, if this NVRTC does not know the architecture
    log: str  # the compiler's: with ``verbose`` registers, spills and shared bytes


class CompileError(RuntimeError):
    """NVRTC is missing, or refuses to compile."""


def compile_text(
    text: str, architecture: int, *, driver: int | None = None, verbose: bool = False
) -> DeviceCode:
    """Compile a source text with NVRTC for an architecture, such as 90, or raise `CompileError`.

    ``driver`` is the result of cuDriverGetVersion, such as 12080: a driver of CUDA 12 does not load
    code from NVRTC of CUDA 13.
    """
    nvrtc = library(None if driver is None else driver // 1000)
    if nvrtc is None:
        of = "" if driver is None else f" of CUDA {driver // 1000} or before"
        raise CompileError(f"NVRTC{of} was not found: pip install nvidia-cuda-nvrtc-cu12")
    known = [a for a in _architectures(nvrtc) if a <= architecture]
    if not known:
        raise CompileError(f"this NVRTC compiles for no architecture up to sm_{architecture}")
    native = known[-1] == architecture
    options = [*OPTIONS, f"--gpu-architecture={'sm' if native else 'compute'}_{known[-1]}"]
    if verbose:
        options.append("--ptxas-options=-v")
    program = ctypes.c_void_p()
    named = text.encode(), b"solve.cu"
    _call(nvrtc, "nvrtcCreateProgram", ctypes.byref(program), *named, 0, None, None)
    try:
        encoded = [option.encode() for option in options]
        given = (ctypes.c_char_p * len(encoded))(*encoded)
        failed = nvrtc.nvrtcCompileProgram(program, len(encoded), given)
        log = _text(nvrtc, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if failed:
            raise CompileError(f"NVRTC refuses the kernel: {log.strip()[:2000]}")
        return DeviceCode(_text(nvrtc, program, "CUBIN" if native else "PTX"), log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _call(nvrtc: Any, name: str, *arguments: Any) -> None:
    if failed := getattr(nvrtc, name)(*arguments):
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        reason = nvrtc.nvrtcGetErrorString(failed).decode(errors="replace")
        raise CompileError(f"{name} failed: {reason}")


def _text(nvrtc: Any, program: Any, output: str) -> bytes:
    size = ctypes.c_size_t()
    _call(nvrtc, f"nvrtcGet{output}Size", program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    _call(nvrtc, f"nvrtcGet{output}", program, text)
    return text.raw


def _architectures(nvrtc: Any) -> list[int]:
    count = ctypes.c_int()
    _call(nvrtc, "nvrtcGetNumSupportedArchs", ctypes.byref(count))
    architectures = (ctypes.c_int * count.value)()
    _call(nvrtc, "nvrtcGetSupportedArchs", architectures)
    return sorted(architectures)


@functools.cache
def library(newest: int | None = None) -> Any:
    """Return the newest NVRTC here up to a major version as a ctypes library, or None.

    Wheels, Python's own environment (conda's), CUDA_PATH and CUDA_HOME are searched for the newest
    first, the system's own library last.
    """
    for name in _candidates():
        try:
            nvrtc = ctypes.CDLL(name)
            _architectures(nvrtc)  # raises before CUDA 11.2
            major, minor = ctypes.c_int(), ctypes.c_int()
            _call(nvrtc, "nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        except (OSError, AttributeError, CompileError):
            continue
        if newest is None or major.value <= newest:
            return nvrtc
    return None


def _candidates() -> Iterator[str]:
    folders = [Path(p) / "nvidia" for p in sys.path]
    folders += [Path(p) for p in dict.fromkeys((sys.prefix, sys.base_prefix))]
    folders += [Path(os.environ[name]) for name in ("CUDA_PATH", "CUDA_HOME") if name in os.environ]
    below = ("", "*/", "targets/*/", "Library/")  # the last two are conda's
    names = ("lib/libnvrtc.so.*", "lib64/libnvrtc.so.*", "bin/nvrtc64_*.dll", "bin/x64/nvrtc64_*")
    paths = [
        path
        for folder, under, name in itertools.product(folders, below, names)
        for path in folder.glob(under + name)
        if re.fullmatch(r"libnvrtc\.so\.\d+|nvrtc64_\d+_\d+\.dll", path.name)
    ]
    yield from map(str, sorted(paths, key=lambda p: p.name, reverse=True))
    yield from _NAMES
