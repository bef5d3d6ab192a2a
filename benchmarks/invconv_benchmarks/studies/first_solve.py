"""The time that importing invconv takes, the first solve, and each further kernel it compiles.

``python -m invconv_benchmarks.studies.first_solve`` starts processes, one after another. Some
import NumPy and then invconv. The others then prepare and solve, and a call is timed twice: what
the first takes longer is the import of llvmlite and compiling. Then the same for other numbers of
channels, each a kernel of its own, and for the other dtype. The table has medians over the
processes, with the least and the most.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import invconv as ic
from invconv_benchmarks.measure import processes, timing
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.report.tables import new
from invconv_conformance import printing

CHANNELS = (12, 3, 24, 48)  # the first solve has the first of them
DTYPES = ("float32", "float64")
# seconds at most: of the import, of the first solve, of each further block of channels
IMPORT, FIRST, FURTHER = 0.15, 0.3, 0.1
_GRID = (16, 16)
_IMPORT = """
import time, numpy
start = time.perf_counter()
import invconv
print(time.perf_counter() - start)
"""

Step = tuple[str, int]
Seconds = dict[Step, float]


class Cost(NamedTuple):
    """Seconds that are spent once in a process, over several of them, and the most they should be.

    The interval is the median, the least and the most; a limit of None is none.
    """

    about: str
    seconds: Interval
    limit: float | None


def imported() -> float:
    """Return the seconds that importing invconv takes in a new process that has imported NumPy."""
    command = [sys.executable, "-c", _IMPORT]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def extra(dtype: str, channels: int) -> float:
    """Return the seconds that preparing and solving take beyond what they take again."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((1, channels, *_GRID)).astype(dtype)
    conv = ic.AutoregressiveConv.init(channels, rng=rng, like=y)
    first, second = (
        timing.seconds(lambda: conv.prepare(_GRID, check=False).inverse(y)) for _ in range(2)
    )
    return first - second


def steps(first: str) -> tuple[Step, ...]:
    """Return what a process does one after another: (dtype, channels)."""
    (other,) = (dtype for dtype in DTYPES if dtype != first)
    return (*((first, channels) for channels in CHANNELS), (other, CHANNELS[0]))


def in_a_process(first: str) -> Seconds:
    """Return what each step costs in a new process that begins with a dtype."""
    return processes.call(_extras, first)


def costs(first: str, found: Sequence[Seconds]) -> Iterator[Cost]:
    """Yield each step's cost over processes that began with a dtype."""
    for number, step in enumerate(steps(first)):
        dtype, channels = step
        taken = [seconds[step] for seconds in found]
        stated = _stated(taken)
        if number == 0:
            yield Cost(f"{dtype}, {channels} channels: the first solve", stated, FIRST)
        elif dtype == first:
            yield Cost(f"{dtype}, then {channels} channels", stated, FURTHER)
        else:
            yield Cost(f"{dtype} after {first}, {channels} channels", stated, None)


def _stated(taken: Sequence[float]) -> Interval:
    return Interval(statistics.median(taken), min(taken), max(taken))


def table(found: Sequence[Cost]) -> Table:
    """Return a line for each cost, in milliseconds."""
    title = "once a process: imports, and compiling"
    shown = new(title, ("what",), ("ms", "least-most", "limit", "verdict"))
    for cost in found:
        value, low, high = (1e3 * seconds for seconds in astuple(cost.seconds))
        limit = ("", "")
        if cost.limit is not None:
            limit = f"{1e3 * cost.limit:g}", cost.seconds.verdict(cost.limit)
        shown.add_row(cost.about, f"{value:.0f}", f"{low:.0f}-{high:.0f}", *limit)
    return shown


def _extras(first: str) -> Seconds:
    """Return what each step costs here.

    Raises
    ------
    RuntimeError
        If llvmlite is imported before the first solve, or not by it.
    """
    if "llvmlite" in sys.modules:
        raise RuntimeError("expected that nothing but a solve imports llvmlite")
    found = {step: extra(*step) for step in steps(first)}
    if "llvmlite" not in sys.modules:
        raise RuntimeError("the solves did without the compiled kernel: python -m invconv info")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=7, help="for each dtype (default: 7)")
    arguments = parser.parse_args(argv)
    if importlib.util.find_spec("llvmlite") is None:
        raise SystemExit('llvmlite is not installed: pip install "invconv[fast]"')
    jobs = [dtype for _ in range(arguments.processes) for dtype in DTYPES]
    found: dict[str, list[Seconds]] = {dtype: [] for dtype in DTYPES}
    imports: list[float] = []
    imported()  # the first may write the bytecode
    for dtype in track(jobs, "measuring", console=Console(stderr=True), transient=True):
        imports.append(imported())
        found[dtype].append(in_a_process(dtype))
    every = [Cost("import invconv, after NumPy", _stated(imports), IMPORT)]
    every += [cost for dtype in DTYPES for cost in costs(dtype, found[dtype])]
    printing.console().print(table(every))


if __name__ == "__main__":
    main()
