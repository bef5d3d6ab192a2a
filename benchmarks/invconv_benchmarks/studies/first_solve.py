"""The time that importing invconv takes, the first solve, and each further kernel it compiles.

A solve is timed twice: what the first takes longer is the import of llvmlite and compiling. Other
numbers of channels have kernels of their own. A spread is from the least process to the most.
"""

import importlib.util
import statistics
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

import invconv as ic
from invconv.arrays.errors import CommandError
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.measure.timing import Interval
from invconv_benchmarks.results.result import Verdict, judged

_CHANNELS = (12, 3, 24, 48)  # the first solve has the first of them
# seconds at most: of the import, of the first solve, of each further number of channels
_IMPORT, _FIRST, _FURTHER = 0.15, 0.3, 0.1
_GRID, _PROCESSES = (16, 16), 7
_PROGRAM = """
import time, numpy
start = time.perf_counter()
import invconv
print(time.perf_counter() - start)
"""


def measure(quick: bool, folder: Path) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge each step over seven processes, or with ``quick`` over one."""
    if importlib.util.find_spec("llvmlite") is None:
        raise CommandError("first_solve: llvmlite is not installed: pip install llvmlite")
    times = range(1 if quick else _PROCESSES)
    shown = track(times, "measuring", console=Console(stderr=True), transient=True)
    imported()  # the first may write the bytecode
    seconds = [(imported(), *in_a_process("float32"), *in_a_process("float64")) for _ in shown]
    names = [("import invconv, after NumPy", _IMPORT)]
    for dtype in ("float32", "float64"):
        names += [(f"{dtype}, {_CHANNELS[0]} channels: the first solve", _FIRST)]
        names += [(f"{dtype}, then {channels} channels", _FURTHER) for channels in _CHANNELS[1:]]
    taken = np.transpose(1e3 * np.asarray(seconds)).tolist()
    spans = [Interval(statistics.median(step), min(step), max(step)) for step in taken]
    steps = zip(names, spans, strict=True)
    limit = "milliseconds, once a process"
    return [judged(limit, what, span, 1e3 * most) for (what, most), span in steps], {}


def imported() -> float:
    """Return the seconds that importing invconv takes in a new process that has imported NumPy."""
    command = [sys.executable, "-c", _PROGRAM]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def in_a_process(dtype: str) -> list[float]:
    """Return the extra seconds of the first solve of each number of channels, in a new process."""
    with ProcessPoolExecutor(1, environment.SPAWN) as executor:
        return executor.submit(_extras, dtype).result()


def _extras(dtype: str) -> list[float]:
    """Return the seconds that preparing and solving take beyond what they take again, here."""
    if "llvmlite" in sys.modules:
        raise RuntimeError("expected that nothing but a solve imports llvmlite")
    seconds = [_extra(dtype, channels) for channels in _CHANNELS]
    if "llvmlite" not in sys.modules:
        raise RuntimeError("the solves did without the compiled kernel: python -m invconv info")
    return seconds


def _extra(dtype: str, channels: int) -> float:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((1, channels, *_GRID)).astype(dtype)
    conv = ic.AutoregressiveConv.init(channels, rng=rng, like=y)
    first, second = (
        timing.seconds(lambda: conv.prepare(_GRID, check=False).inverse(y)) for _ in range(2)
    )
    return first - second
