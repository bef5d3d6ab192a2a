"""Jobs, which are solves, and the kernel's source, compiled for this processor and run on them."""

import functools
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.kernels.cuda.compile import source
from invconv.kernels.cuda.plan import Device, Launch, LaunchPlan, plan_of

HERE = Path(__file__).parent / "on_cpu"
SECONDS = 300  # after which a run has failed

Mode = Literal["values", "races", "edges"]
_FLAGS: dict[Mode, list[str]] = {
    "values": ["-O1"],  # fibers; the others are threads
    # few small solves, and a compile each: what the compiler takes counts
    "races": ["-O0", "-fsanitize=thread"],
    "edges": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
_COMMON = ["-std=c++17", "-Wno-unknown-pragmas", "-I", str(HERE)]
_KERNEL = ["-march=native", "-ffp-contract=off", "-pthread"]
_STRICT = ["-Wall", "-Wextra", "-Werror"]
_WHAT = {3: "waits for ever", 4: "a barrier that not all threads reach"}
_WHAT |= {66: "a race", 67: "an error in memory"}
_SANITIZERS = {
    "TSAN_OPTIONS": "halt_on_error=1 exitcode=66 report_thread_leaks=0",
    "ASAN_OPTIONS": "exitcode=67 detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


Floats = np.ndarray[Any, Any]
LARGE = Device(90, 227 * 1024, 132)


class CudaResult(NamedTuple):
    """What a job gives."""

    weights: Floats  # as `invconv.kernels.cuda.plan` lays them out, norms of columns last
    x: Floats
    rounds: int  # steps that it took with fibers, all of them going on at the same time


@dataclass(frozen=True, eq=False)
class CudaSolve:
    """A solve."""

    name: str
    conv: ic.AutoregressiveConv  # of NumPy arrays of the precision that is solved in
    y: Floats  # (B, C, *spatial)
    plan: LaunchPlan
    launch: Launch  # of "solve"
    resident: int = 1  # how many blocks run at a time

    def __str__(self) -> str:
        """Show the operator, the images and the launch."""
        images = f"{self.y.shape} {self.y.dtype}"
        return f"{self.name}: {self.conv!r}, y {images}, {self.launch}, {self.resident} at a time"

    @property
    def matrices(self) -> Floats:
        """D, then the taps, (1 + T, C, C)."""
        found: Floats = self.conv._causal().taps
        return found

    def packed(self) -> bytes:
        """Return the bytes that `on_cpu/main.cpp` reads."""
        folds, matrices = self.plan.weigh(), self.matrices
        blocks = [n for launch in (*folds, self.launch) for n in (launch.blocks, launch.threads)]
        sizes = matrices.nbytes, self.plan.weights * self.y.itemsize, self.y.nbytes
        numbers = self.resident, *sizes, *blocks, self.launch.shared, self.launch.counters
        head = np.array(numbers, "int64").tobytes() + folds[0].struct + self.launch.struct
        return head + matrices.tobytes() + self.y.tobytes()

    def unpack(self, written: bytes) -> tuple[CudaResult, bytes]:
        """Return the result, and the rest of what was written."""
        first, dtype = 8 + self.plan.weights * self.y.itemsize, self.y.dtype
        last = first + self.y.nbytes
        x = np.frombuffer(written[first:last], dtype).reshape(self.y.shape)
        rounds = int(np.frombuffer(written[:8], "int64")[0])
        return CudaResult(np.frombuffer(written[8:first], dtype), x, rounds), written[last:]


def plan_for(
    conv: ic.AutoregressiveConv, shape: Shape, itemsize: int, device: Device
) -> LaunchPlan | None:
    """Return the plan of an operator's solve."""
    return plan_of(conv.channels, conv._causal().sweep.on(shape), itemsize, device)


def in_precision(conv: ic.AutoregressiveConv, dtype: str) -> ic.AutoregressiveConv:
    """Return the operator without its bias, in float32 or float64."""
    return replace(conv, kernel=conv.kernel.astype(dtype), bias=None)


class RunError(RuntimeError):
    """A run ended with an error: what sanitizers or `on_cpu` found."""


@dataclass(frozen=True)
class Builder:
    """Compiles for a mode, into a folder of files that are kept while this process runs."""

    folder: Path
    mode: Mode
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def solve(
        self,
        jobs: Sequence[CudaSolve],
        texts: dict[str, str] | None = None,
        seconds: float = SECONDS,
    ) -> list[CudaResult]:
        """Return the result of each job of the same constants, by the source or other ``texts``."""
        text = source(jobs[0].plan.constants, texts)
        program = self._program(text, _STRICT if texts is None else [])
        given, found = (program.with_suffix(suffix) for suffix in (".in", ".out"))
        given.write_bytes(b"".join(job.packed() for job in jobs))
        command = [*_same_addresses(), str(program), str(given), str(found)]
        environment = os.environ | _SANITIZERS
        try:
            run = subprocess.run(command, capture_output=True, env=environment, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise RunError("does not end") from None
        if run.returncode:
            said = run.stderr.decode(errors="replace")
            raise RunError(f"{_WHAT.get(run.returncode, f'exit code {run.returncode}')}\n{said}")
        written, results = found.read_bytes(), []
        for job in jobs:
            result, written = job.unpack(written)
            results.append(result)
        return results

    def _program(self, text: str, warnings: list[str]) -> Path:
        names = "main", "fibers" if self.mode == "values" else "threads"
        with self._lock:
            harness = [self._compiled(name, "-c", HERE / f"{name}.cpp") for name in names]
        name = hashlib.sha256(text.encode()).hexdigest()[:20]
        kernel = self.folder / f"{self.mode}-{name}.cpp"
        kernel.write_text(text, "utf-8")
        return self._compiled(name, *_KERNEL, *warnings, kernel, *harness)

    def _compiled(self, name: str, *arguments: str | Path) -> Path:
        target = self.folder / f"{self.mode}-{name}"
        if target.exists():
            return target
        part = target.with_suffix(".part")
        command = ["g++", *_COMMON, *_FLAGS[self.mode], *map(str, arguments), "-o", str(part)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"the source does not compile:\n{run.stderr}")
        return part.rename(target)


@functools.cache
def _same_addresses() -> list[str]:
    """Return the prefix of a command: ThreadSanitizer fails where addresses are too random."""
    command = ["setarch", "-R"]
    there = shutil.which("setarch") is not None
    works = there and not subprocess.run([*command, "true"], capture_output=True).returncode
    return command if works else []
