"""A worker process that measures. Its threads are limited before a library is loaded."""

import signal
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from invconv_benchmarks.contenders import ours, plain, references
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure import processes, turns
from invconv_benchmarks.measure.contender import Contender, set_threads
from invconv_benchmarks.measure.gpu import full_precision, with_graphs
from invconv_benchmarks.measure.turns import Timing
from invconv_benchmarks.results.row import Row, row_of
from invconv_benchmarks.suites.group import ALTERNATING, Group
from invconv_conformance.libraries.environment import settings
from invconv_conformance.libraries.table import KNOWN, Target


@dataclass(frozen=True)
class Job:
    """The work of one worker process."""

    groups: tuple[Group, ...]
    targets: tuple[tuple[str, str], ...]  # libraries and devices
    threads: int
    seconds: float  # for the rounds of a contender
    cache: str = ""  # the folder in which JAX keeps compiled code for the next pass


def run(job: Job) -> Generator[tuple[Group, list[Row]]]:
    """Yield each group with the rows that a worker process measures.

    The group of a process that dies gets an error, and a new process goes on with the rest.
    """
    variables = settings(job.threads, job.cache)
    left = list(job.groups)
    while left:
        with processes.pool(1, variables, _begin, job.targets, job.threads) as worker:
            try:
                while left:
                    rows = worker.submit(_measure, left[0], job.threads, job.seconds).result()
                    yield left.pop(0), rows
            except BrokenProcessPool:
                group = left.pop(0)
                yield group, [row_of(group, None, job.threads, error="the process died")]


_targets: list[Target] = []


def _begin(names: Sequence[tuple[str, str]], threads: int) -> None:
    # Ctrl-C ends this process; the parent keeps earlier results
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    _targets[:] = targets_of(names)
    for target in _targets:
        full_precision(target)
        set_threads(target.library.name, threads)
    threadpool_limits(threads)


def targets_of(names: Sequence[tuple[str, str]]) -> list[Target]:
    """Return the targets of (library, device) names, compiled where the library compiles."""
    targets = []
    for name, device in names:
        library = KNOWN[name]
        library.devices()  # this enables float64 in JAX
        targets.append(Target(library, device, "jit" if "jit" in library.modes else "eager"))
    return with_graphs(targets)


def _contenders(group: Group) -> list[Contender]:
    ways = [ours.contenders, *[plain.contenders, references.contenders] * (not group.axis)]
    if group.suite in ("threads", "checks"):
        ways = [getattr(ours, group.suite)]
    elif group.suite == "overhead":
        from invconv_benchmarks.contenders import layers  # which imports PyTorch

        ways = [layers.contenders]
    setups = [Setup(group, target) for target in _targets]
    return [contender for setup in setups for way in ways for contender in way(setup)]


def _measure(group: Group, threads: int, seconds: float) -> list[Row]:
    alternating = group.suite in ALTERNATING
    timings = turns.measure(_contenders(group), seconds, alternating=alternating)
    return [_row(group, threads, timing) for timing in timings]


def _row(group: Group, threads: int, timing: Timing) -> Row:
    contender = timing.contender
    samples = [float(f"{s:.5g}") for s in timing.samples]
    known: dict[str, Any] = {n: getattr(timing, n) for n in ("plan", "first", "calls", "error")}
    if contender.images is not None and samples and not group.axis:
        solution = contender.images(timing.result)
        known["residual"] = Setup(group, contender.target).residual(solution)
    return row_of(group, contender, threads, passes=[samples], **known)
