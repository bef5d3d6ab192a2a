"""The speed-up of an inverse by a second thread, in NumPy and in PyTorch.

``python -m invconv_benchmarks.studies.two_threads`` times prepared inverses of one 2 x 2 corner at
the ten shapes of the limits, with one thread and with two in turns, in one process. A solve of more
than a millisecond with one thread should be 1.6 times as fast with two. No solve should be slower;
a difference of one part in twenty counts as equal.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import track
from rich.table import Table
from threadpoolctl import threadpool_limits

from invconv_benchmarks.contenders import ours
from invconv_benchmarks.contenders.everyone import targets_of
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure import spread, threads, turns
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.report.tables import new
from invconv_benchmarks.results.row import TITLES
from invconv_benchmarks.suites.group import LIMIT_SHAPES, Group, Shape, as_text
from invconv_conformance import printing

LIBRARIES = ("numpy", "torch")
LONG = 1e-3  # seconds of one thread, from which a second one has to gain
GAIN, EQUAL = 1.6, 0.95  # the least of one thread's time / two threads'
_PASSES = 3


@dataclass(frozen=True)
class Gain:
    """One thread's median seconds of a solve, and its time / two threads'."""

    group: Group
    library: str
    seconds: float
    gain: Interval

    @property
    def bound(self) -> float:
        """The least gain there should be."""
        return GAIN if self.seconds > LONG else EQUAL

    @property
    def verdict(self) -> str:
        """Whether the speed-up reaches the bound."""
        return self.gain.verdict(self.bound, least=True)


def compare(shapes: Sequence[Shape], dtypes: Sequence[str], seconds: float) -> list[Gain]:
    """Return what a second thread gains in each library, at each shape, in each dtype.

    Parameters
    ----------
    shapes : sequence of (B, C, H, W)
    dtypes : sequence of str
    seconds : float
        For each number of threads in each of three passes.
    """
    groups = [
        Group("inverse", "corner 2", shape, ("inverse",), dtype=dtype)
        for dtype in dtypes
        for shape in shapes
    ]
    found = []
    with threadpool_limits(1, user_api="blas"):  # waiting threads of other pools slow this one down
        for library in LIBRARIES:
            shown = track(groups, library, console=Console(stderr=True), transient=True)
            samples = [_in_turns(library, group, seconds) for group in shown]
            between = spread.between_passes(samples)
            found += [
                Gain(group, library, spread.quantiles(one)[1], spread.ratio(one, two, between))
                for group, (one, two) in zip(groups, samples, strict=True)
            ]
    return found


def _in_turns(library: str, group: Group, seconds: float) -> tuple[spread.Passes, spread.Passes]:
    """Return the samples of one thread and of two, which take turns, in passes."""
    (target,) = targets_of([(library, "cpu")])
    (inverse,) = ours.contenders(Setup(group, target))
    before = threads.number(library)
    both = [
        replace(inverse, before=functools.partial(threads.set_number, library, count))
        for count in (1, 2)
    ]
    try:
        passes = [turns.measure(both, 2 * seconds) for _ in range(_PASSES)]
    finally:
        threads.set_number(library, before)
    errors = [timing.error for timings in passes for timing in timings if timing.error]
    if errors:
        raise RuntimeError(f"{library}, {group.title}: {errors[0]}")
    one, two = ([timings[i].samples for timings in passes] for i in range(2))
    return one, two


def table(found: Sequence[Gain]) -> Table:
    """Return a line for each library, dtype and shape."""
    shown = new(
        "inverse of corner 2: gain = time with one thread / with two",
        ("B x C x H x W", "", "library"),
        ("ms, 1 thr", "gain", "spread", "least", "verdict"),
    )
    for one in found:
        shown.add_row(
            as_text(one.group.shape),
            one.group.dtype.replace("float", "f"),
            TITLES[one.library],
            f"{1e3 * one.seconds:.3g}",
            f"{one.gain.value:.2f}",
            f"{one.gain.low:.2f}-{one.gain.high:.2f}",
            f"{one.bound:g}",
            one.verdict,
        )
    return shown


def summary(found: Sequence[Gain]) -> list[str]:
    """Return a sentence on the long solves, and one on the others."""
    lines = []
    for name, bound in (
        (f"over {1e3 * LONG:g} ms: at least {GAIN:g} times as fast with two threads", GAIN),
        ("the others: not slower with two threads", EQUAL),
    ):
        verdicts = [one.verdict for one in found if one.bound == bound]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("pass", "unclear", "miss"))
        lines.append(f"{name}: {counts}")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two shapes, in float32")
    parser.add_argument(
        "--seconds", type=float, default=0.2, help="for each number of threads, in each pass"
    )
    arguments = parser.parse_args(argv)
    shapes = (LIMIT_SHAPES[0], LIMIT_SHAPES[5]) if arguments.quick else LIMIT_SHAPES
    dtypes = ("float32",) if arguments.quick else ("float32", "float64")
    found, console = compare(shapes, dtypes, arguments.seconds), printing.console()
    console.print(table(found))
    for line in summary(found):
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
