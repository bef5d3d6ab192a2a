"""A stand-in for CUDA's driver and compiler: kernels run on this processor.

`libcuda.cpp` is loaded in the driver's place, so that the launcher's own calls, with the types that
it gives them, reach compiled code. Kernels come from g++ in NVRTC's place, over CUDA's words of
`invconv_conformance.cuda.on_cpu`. Every launch is recorded; one that lacks what the launcher
promises in `invconv.kernels.cuda.plan` fails.
"""

import ctypes
import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import invconv_conformance.cuda
from invconv.kernels.cuda import compile as compiler
from invconv.kernels.cuda import driver, launch
from invconv.kernels.cuda.compile import DeviceCode
from invconv.kernels.cuda.plan import GRID, POINTERS

HERE = Path(__file__).parent
ON_CPU = Path(invconv_conformance.cuda.__file__).parent / "on_cpu"
STREAM = 0x5EED_0000_0001  # which a handle of 32 bits could not hold
# several kernels in a process: none must see the constants of another
_FLAGS = ["-std=c++17", "-O0", "-shared", "-fPIC", "-fno-gnu-unique", "-Wl,-Bsymbolic"]
_NOTHING = "".join(f'extern "C" void {name}() {{}}' for name in POINTERS)
_FLAGS += ["-Wno-unknown-pragmas", "-I", str(ON_CPU)]


@dataclass(frozen=True)
class Launched:
    """A launch as the driver saw it."""

    kernel: str
    device: int
    blocks: int
    threads: int
    shared: int
    stream: int
    pointers: dict[str, int]  # by the names of the arguments
    grid: dict[str, int]  # the struct, by the names of its members


@dataclass
class Driver:
    """The stand-in, which records all launches."""

    folder: Path  # of compiled kernels; may be shared
    runs: bool = True  # whether launches run
    launches: list[Launched] = field(default_factory=list)

    def install(self, put: Callable[[Any, str, Any], object] = setattr) -> "Driver":
        path = _built(self.folder, HERE / "libcuda.cpp", HERE.joinpath("libcuda.cpp").read_text())
        self.library = ctypes.CDLL(str(path))
        sizes = ctypes.c_int, *[ctypes.c_uint] * 3, ctypes.c_void_p
        pointers = ctypes.POINTER(ctypes.c_void_p)
        look = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, *sizes, pointers)
        self._look = look(self._seen)  # kept: it is called from compiled code
        self.library.stand_in_look(self._look)
        for number, value in ((16, 132), (75, 9), (76, 0), (97, 227 * 1024)):
            self.library.stand_in_attribute(number, value)
        put(driver, "NAMES", (str(path),))
        put(compiler, "compile_text", self._compile)
        forget()
        return self

    def _compile(self, text: str, architecture: int, *, driver: int | None) -> DeviceCode:
        assert (architecture, driver) == (90, 12080)
        path = _built(self.folder, HERE / "kernels.cpp", text if self.runs else _NOTHING)
        return DeviceCode(str(path).encode() + b"\0", "")

    def _seen(self, name: bytes, *rest: Any) -> bool:
        device, blocks, threads, shared, stream, arguments = rest
        names = POINTERS[name.decode()]
        values = (ctypes.c_void_p.from_address(a).value or 0 for a in arguments[: len(names)])
        pointers = dict(zip(names, values, strict=True))
        grid = list((ctypes.c_int * len(GRID)).from_address(arguments[len(names)]))
        given = dict(zip(GRID, grid, strict=True))
        sizes = device, blocks, threads, shared, stream or 0
        self.launches.append(Launched(name.decode(), *sizes, pointers, given))
        return self.runs


def forget() -> None:
    """Forget what is remembered of devices and code."""
    of_devices = driver.library, driver.version, driver.attribute, driver._device, driver._context
    of_code = launch.program_of, launch._loaded, launch._solve_launch
    remembered: tuple[Any, ...] = *of_devices, *of_code
    for function in remembered:
        function.cache_clear()


def _built(folder: Path, wrapper: Path, text: str) -> Path:
    """Compile a text, with a wrapper and the fibers where it is a kernel's."""
    target = folder / f"{wrapper.stem}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.so"
    if target.exists():
        return target
    source, sources = target.with_suffix(".cpp"), []
    source.write_text(text, "utf-8")
    if wrapper.stem == "kernels" and text != _NOTHING:
        sources = ["-march=native", "-ffp-contract=off", str(wrapper), str(ON_CPU / "fibers.cpp")]
    command = ["g++", *_FLAGS, str(source), *sources, "-ldl", "-o", str(target)]
    subprocess.run(command, check=True, timeout=300)
    return target
