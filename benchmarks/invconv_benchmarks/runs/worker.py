"""A worker process that measures. Its threads are limited before a library is loaded."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from threadpoolctl import threadpool_limits

from invconv_benchmarks.contenders.everyone import contenders, targets_of
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure import memory, processes, turns
from invconv_benchmarks.measure.contender import Contender
from invconv_benchmarks.measure.gpu import full_precision
from invconv_benchmarks.measure.threads import set_number
from invconv_benchmarks.measure.turns import Timing
from invconv_benchmarks.results.row import Row, row_of
from invconv_benchmarks.suites.group import ALTERNATING, Group
from invconv_conformance.libraries.environment import settings
from invconv_conformance.libraries.table import Target


@dataclass(frozen=True)
class Job:
    """The work of one worker process: to time contenders, or else to measure their memory.

    ``targets`` are names of libraries and devices, ``seconds`` are for the rounds of a contender,
    and in the folder ``cache`` JAX keeps compiled code for the next pass.
    """

    groups: tuple[Group, ...]
    targets: tuple[tuple[str, str], ...]
    threads: int
    seconds: float
    memory: bool = False
    cache: str = ""


def run(job: Job) -> Generator[tuple[Group, list[Row]]]:
    """Yield each group with the rows that a worker process measures.

    If the process dies, of too little memory perhaps, its group gets an error, and a new process
    goes on with the rest.
    """
    variables = settings(job.threads, job.cache) | (memory.ENVIRONMENT if job.memory else {})
    left = list(job.groups)
    while left:
        with processes.pool(1, variables, _begin, job.targets, job.threads) as worker:
            try:
                while left:
                    measure = _sizes if job.memory else _times
                    rows = worker.submit(measure, left[0], job.threads, job.seconds).result()
                    yield left.pop(0), rows
            except BrokenProcessPool:
                group = left.pop(0)
                yield group, [row_of(group, None, job.threads, error="the process died")]


_targets: list[Target] = []


def _begin(names: Sequence[tuple[str, str]], threads: int) -> None:
    """Prepare a worker process."""
    # Ctrl-C ends this process; the parent keeps earlier results
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    _targets[:] = targets_of(names)
    for target in _targets:
        full_precision(target)
        set_number(target.library.name, threads)
    threadpool_limits(threads)


def _times(group: Group, threads: int, seconds: float) -> list[Row]:
    found = contenders(group, _targets)
    timings = turns.measure(found, seconds, alternating=group.suite in ALTERNATING)
    return [_timed(group, c, threads, t) for c, t in zip(found, timings, strict=True)]


def _timed(group: Group, contender: Contender, threads: int, timing: Timing) -> Row:
    passes = [[float(f"{s:.5g}") for s in timing.samples]] if timing.samples else []
    known = {name: getattr(timing, name) for name in ("plan", "first", "calls", "error")}
    return row_of(group, contender, threads, passes=passes, **known)


def _sizes(group: Group, threads: int, seconds: float) -> list[Row]:
    """Return the memory that the contenders take, and the residuals of those that solve."""
    return [row for target in _targets for row in _sizes_on(group, target, threads)]


def _sizes_on(group: Group, target: Target, threads: int) -> Iterator[Row]:
    tiny = replace(group, shape=(1, group.shape[1], *(min(n, 8) for n in group.shape[2:])))
    few, many = contenders(tiny, [target]), contenders(group, [target])
    for small, contender in zip(few, many, strict=True):
        with contextlib.suppress(Exception):  # the row of times reports the error
            if target.mode != "jit":
                small.build()()  # loads code and tables that a library needs once
            peak, result = memory.measure(contender)
            residual = None
            if contender.images is not None:
                residual = Setup(group, target).residual(contender.images(result))
            yield row_of(group, contender, threads, memory=peak, residual=residual)
