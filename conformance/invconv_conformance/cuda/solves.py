"""Solves of the kernel's source, compiled for this processor, and verdicts on them.

Their results are compared with the definition and the CPU's kernel. Jobs, which are solves, are
random ones, those of the case list, and small ones whose every thread can be followed.
"""

import functools
import hashlib
import itertools
import math
import os
import shutil
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.kernels.cpu.assembly import program
from invconv.kernels.cpu.compiled import compiled_solve
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cpu.machine import reason
from invconv.kernels.cpu.program import addresses
from invconv.kernels.cuda.compile import source
from invconv.kernels.cuda.plan import Device, Launch, LaunchPlan, plan_of
from invconv_conformance.cases.table import Case, skewed
from invconv_conformance.truth.oracle import EXTENDED, convolve

HERE = Path(__file__).parent / "on_cpu"
SECONDS = 300  # a run that takes longer has failed

Mode = Literal["values", "races", "edges"]
_FLAGS: dict[Mode, list[str]] = {
    "values": ["-O1"],
    # few small solves with a compile each: the compiler's time counts
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
    """The results of a job."""

    weights: Floats  # as `invconv.kernels.cuda.plan` lays them out, norms of columns last
    x: Floats
    rounds: int  # steps that it took, with all threads advancing together


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
    """A run ended with an error, found by sanitizers or `on_cpu`."""


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
        with self._lock:
            harness = [self._compiled(n, "-c", HERE / f"{n}.cpp") for n in ("main", "fibers")]
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


@dataclass(frozen=True)
class CudaVerdict:
    """The verdict on a job."""

    job: CudaSolve
    # in eps; for a singular D infinite if the solution is finite, else 0
    error: float = math.nan
    # whether weights and solution are those of the CPU's kernel; None where that does not run
    same_bits: bool | None = None
    substitutes: bool = False  # whether D^-1 was not folded in
    failure: str = ""  # the error that ended the run

    @property
    def wrong(self) -> str:
        """The faults found, in words; the sums have C terms for each tap."""
        bound = 10 + self.job.conv.channels * (1 + len(self.job.plan.order))
        if not self.failure and self.error <= bound and self.same_bits is not False:
            return ""
        bits = f"bits {self.same_bits} {self.failure[:2000]}"
        return f"{self.job}: error {self.error} eps of {bound}, {bits}"


def grouped(jobs: Iterable[CudaSolve]) -> list[list[CudaSolve]]:
    """Return jobs of the same constants together."""
    groups = defaultdict(list)
    for job in jobs:
        groups[job.plan.constants].append(job)
    return list(groups.values())


def judge(builder: Builder, group: Sequence[CudaSolve]) -> list[CudaVerdict]:
    """Run jobs of the same constants."""
    try:
        results = builder.solve(group)
    except RunError as error:
        return [CudaVerdict(job, failure=str(error)) for job in group]
    verdicts = []
    for job, (weights, x, _) in zip(group, results, strict=True):
        flag = bool(weights[-1 - 2 * job.conv.channels] != 0)
        off, same = math.inf if np.all(np.isfinite(x)) else 0.0, None
        if np.all(np.diagonal(job.matrices[0])):
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is wrong
                off, same = backward_error(job.conv, x, job.y), _same_bits(job, weights, x)
        verdicts.append(CudaVerdict(job, off, same, flag))
    return verdicts


def backward_error(conv: ic.AutoregressiveConv, x: Floats, y: Floats) -> float:
    """Return the largest of the images' |K x - y| / (|K| |x| + |y|), in largest norms and eps."""
    wide = in_precision(conv, "float64")
    sizes = wide.replace(kernel=np.abs(wide.kernel))
    errors = []
    for x_one, y_one in zip(x.astype(EXTENDED), y.astype(EXTENDED), strict=True):
        off = np.abs(convolve(wide, x_one) - y_one).max()
        size = (convolve(sizes, np.abs(x_one)) + np.abs(y_one)).max()
        errors.append(off / size / np.finfo(x.dtype).eps)
    return float(np.max(errors, initial=0.0))


def _same_bits(job: CudaSolve, weights: Floats, x: Floats) -> bool | None:
    if not comparable(x.itemsize):
        return None
    c, y = job.conv._causal(), np.ascontiguousarray(job.y)
    state = compiled_solve(job.matrices, c.sweep.on(y.shape[2:]))
    expected = np.full_like(y, np.nan)
    state.run(*addresses(y, expected), len(y), 1, y, expected)
    channels, square = job.conv.channels, job.conv.channels**2
    ends = weights[-1 - 2 * channels - square :][: square + 1]  # D, and the flag
    layout = program(state.geometry, "images")
    own, size = state.weights(layout), layout.flag - square
    columns = own[size : layout.flag].reshape(channels, channels)
    pairs = [(x, expected), (ends, np.append(columns.T, own[layout.flag]))]
    if state.geometry.single:  # else the CPU's weights lie in blocks
        pairs.append((weights[:size], own[:size]))
    return all(np.array_equal(one, other, equal_nan=True) for one, other in pairs)


def comparable(itemsize: int) -> bool:
    """Tell whether the CPU's kernel runs here, and with fused multiply-adds."""
    return reason(itemsize) is None and host().fma


_SMALL = Device(75, 48 * 1024, 40)
_TINY = Device(75, 20 * 1024, 40)  # as on a device with little memory left
_LEAST = Device(75, 512, 40)  # smaller than any device's: rows of more than 20 pixels do not fit
_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 24, 25, 33, 48)
_IMAGES = 3  # of a case at most: more images are more blocks that do the same


def drawn(rng: np.random.Generator, channels: int, ndim: int, **settings: Any) -> Any:
    """Return an operator of a mild condition, whose D may be badly conditioned."""
    mask = str(rng.choice(["corner", "raster"]))
    direction = tuple(int(s) for s in rng.choice([-1, 1], ndim))
    most = {1: 7, 2: 7 if channels < 8 else 3, 3: 3, 4: 2}[ndim]
    given: dict[str, Any] = {
        "kernel_size": tuple(int(k) for k in rng.integers(1, most + 1, ndim)),
        "mask": mask,
        "direction": direction[0] if mask == "raster" else direction,
        "channel_order": str(rng.choice(["lower", "upper"])),
        "dilation": tuple(int(d) for d in rng.choice([1, 1, 2, 3], ndim)),
    }
    conv = ic.AutoregressiveConv.init(channels, ndim=ndim, rng=rng, **(given | settings))
    terms = channels * len(conv._family.offsets)
    moved = 0.3 / np.sqrt(terms) * rng.standard_normal(conv.kernel.shape)
    conv = conv.replace(kernel=conv.kernel + moved)
    # D^-1 is not folded into a skewed one
    return skewed(conv, 6 / channels) if rng.integers(3) == 0 else conv


def random_jobs(count: int, seed: int) -> Iterator[CudaSolve]:
    """Yield solves of all kinds, in bands of any height, on devices of little or much memory."""
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        ndim = int(rng.choice([1, 2, 2, 2, 3, 4]))
        channels = int(rng.choice(_CHANNELS if ndim < 3 else _CHANNELS[:6]))
        most = {1: 40, 2: 14, 3: 6, 4: 4}[ndim]
        shape = tuple(int(s) for s in rng.integers(1, most, ndim))
        conv = in_precision(drawn(rng, channels, ndim), str(rng.choice(["float32", "float64"])))
        y = rng.standard_normal((int(rng.integers(1, 4)), channels, *shape))
        device = (_TINY, _SMALL, LARGE, LARGE)[int(rng.integers(4))]
        if n % 4 == 0 and (plan := plan_for(conv, shape, conv.kernel.itemsize, LARGE)):
            lines = replace(plan, weights_shared=False).band_bytes(max(1, plan.depth))
            device = Device(75, lines - 1, 40)  # too small for rows: the plane is turned
        yield from _jobs(f"random {n}", conv, y, device, rng)


def many_channels() -> Iterator[CudaSolve]:
    """Yield solves with up to 512 channels."""
    for n, channels in enumerate((96, 200, 512, 512)):
        rng, dtype = np.random.default_rng(n), f"float{64 if n % 2 else 32}"
        conv = ic.AutoregressiveConv.init(channels, 2, rng=rng, channel_order="upper")
        y = rng.standard_normal((1, channels, 2, 3))
        yield from _jobs(f"{channels} channels", in_precision(conv, dtype), y, LARGE, rng)


def listed_jobs(
    cases: Iterable[Case], dtypes: Sequence[str] = ("float32", "float64")
) -> Iterator[CudaSolve]:
    """Yield the solves of every autoregressive operator in a list of cases."""
    for case in cases:
        rng, operator = case.rng(), case.conv()
        for part, conv in enumerate(factors(operator)):
            images = min(_IMAGES, int(np.prod(case.batch_shape)))
            y = rng.standard_normal((images, conv.channels, *case.spatial_shape))
            for dtype in dtypes:
                name = f"{case.name} {part} {dtype}"
                yield from _jobs(name, in_precision(conv, dtype), y, LARGE, rng)


def factors(operator: Any) -> Iterator[ic.AutoregressiveConv]:
    """Yield the autoregressive parts of an operator."""
    if isinstance(operator, ic.AutoregressiveConv):
        yield operator
    for part in operator._parts().values() if operator._part_names else ():
        yield from factors(part)


def _jobs(
    name: str, conv: ic.AutoregressiveConv, y: Floats, device: Device, rng: np.random.Generator
) -> Iterator[CudaSolve]:
    y = y.astype(conv.kernel.dtype)
    plan = plan_for(conv, y.shape[2:], y.itemsize, device)
    if plan is None or 0 in y.shape:
        return
    least = min(max(1, plan.depth), plan.plane[0])
    rows = int(rng.integers(least, min(plan.most_rows, least + 6) + 1))
    chunk, resident = int(rng.choice([1, 2, 8])), int(rng.choice([1, 3]))
    yield CudaSolve(name, conv, y, plan, plan.in_bands(len(y), rows, chunk=chunk), resident)


def in_volumes() -> list[CudaSolve]:
    """Return the group of `small_jobs` on grids of more than one plane, which uses all waits."""
    return next(group for group in small_jobs() if group[0].y.ndim > 4)


def small_jobs() -> Iterator[list[CudaSolve]]:
    """Yield groups of solves of the same constants, by few threads that use every wait and flag."""
    settings: tuple[tuple[int, Shape, dict[str, Any]], ...] = (
        (3, (6, 5), {"kernel_size": (2, 2), "direction": (1, -1)}),
        (2, (2, 4, 3), {"kernel_size": (2, 2, 2), "channel_order": "upper"}),
        (7, (4, 6), {"kernel_size": (2, 3), "mask": "raster", "dilation": (1, 2)}),
        (9, (4, 4), {"kernel_size": (2, 2)}),
        (2, (64,), {"kernel_size": (3,), "dilation": (2,), "direction": -1}),
        (2, (2, 40), {"kernel_size": (2, 2), "direction": (1, -1)}),
    )
    for channels, shape, options in settings:
        rng = np.random.default_rng(channels)
        given = {"mask": "corner", "direction": 1, "dilation": 1} | options
        conv = in_precision(drawn(rng, channels, len(shape), **given), "float32")
        y = rng.standard_normal((2 if len(shape) < 3 else 1, channels, *shape)).astype("float32")
        group: list[CudaSolve] = []
        both, ways = (conv, skewed(conv, 6 / channels)), ((1, 8), (8, 8), (2, 3), (1, 1))
        for one, (chunk, resident) in itertools.product(both, ways):
            plan: Any = plan_for(one, shape, 4, _LEAST if max(shape) > 20 else LARGE)
            launch = plan.in_bands(len(y), max(2, plan.depth), 2 * channels + 1, chunk)
            group.append(CudaSolve(f"small {len(group)}", one, y, plan, launch, resident))
        yield group
