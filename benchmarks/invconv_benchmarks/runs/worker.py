"""A worker process that measures. Its threads are limited before a library is loaded."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from threadpoolctl import threadpool_info, threadpool_limits

from invconv_benchmarks.contenders.everyone import contenders, targets_of
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure import memory, processes, turns
from invconv_benchmarks.measure.ceilings import Ceiling, ceiling
from invconv_benchmarks.measure.contender import Contender, Label
from invconv_benchmarks.measure.gpu import full_precision
from invconv_benchmarks.measure.threads import set_number
from invconv_benchmarks.results.messages import Message, Pools, Sizes, Times
from invconv_benchmarks.suites.group import Group
from invconv_conformance.libraries.environment import settings
from invconv_conformance.libraries.table import Target

_POOL = ("user_api", "internal_api", "version", "architecture", "num_threads")


@dataclass(frozen=True)
class Job:
    """The work of one worker process.

    Attributes
    ----------
    groups : tuple of Group
    targets : tuple of (library, device)
        By their names.
    threads : int
    seconds : float
        For the rounds of a group.
    memory : bool
        Measure memory instead of time.
    cache : str
        A folder where JAX keeps compiled code for the next pass.
    """

    groups: tuple[Group, ...]
    targets: tuple[tuple[str, str], ...]
    threads: int
    seconds: float
    memory: bool = False
    cache: str = ""


def run(job: Job) -> Generator[Message]:
    """Yield what a worker process measures, a `Times` or `Sizes` for each group.

    If the process dies, of too little memory perhaps, its group gets an error, and a new process
    goes on with the rest.
    """
    variables = settings(job.threads, job.cache) | (memory.ENVIRONMENT if job.memory else {})
    left = list(job.groups)
    while left:
        with processes.pool(1, variables, _begin, job.targets, job.threads) as worker:
            try:
                if not job.memory:
                    dtypes = sorted({group.dtype for group in job.groups})
                    yield from worker.submit(_ceilings, dtypes, job.threads).result()
                while left:
                    yield worker.submit(_measure, left[0], job.seconds, job.memory).result()
                    left.pop(0)
                yield worker.submit(_pools).result()
            except BrokenProcessPool:
                if left:
                    group = left.pop(0)
                    yield (Sizes(group) if job.memory else Times(group, [], "the process died"))


_targets: list[Target] = []


def _begin(names: Sequence[tuple[str, str]], threads: int) -> None:
    """Prepare a worker process."""
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # Ctrl-C ends this process; the parent keeps earlier results
    warnings.simplefilter("ignore")
    _targets[:] = targets_of(names)
    for target in _targets:
        full_precision(target)
        set_number(target.library.name, threads)
    threadpool_limits(threads)


def _pools() -> Pools:
    return Pools([{k: pool.get(k) for k in _POOL} for pool in threadpool_info()])


def _ceilings(dtypes: Sequence[str], threads: int) -> list[Ceiling]:
    return [
        ceiling(target, dtype, threads)
        for target in _targets
        for dtype in dtypes
        if target.mode != "graph"
    ]


def _measure(group: Group, seconds: float, of_memory: bool) -> Times | Sizes:
    if of_memory:
        return Sizes(group, [row for target in _targets for row in _sizes(group, target)])
    found = contenders(group, _targets)
    timings = turns.measure(found, seconds * len(found))
    return Times(group, [(c.label, t) for c, t in zip(found, timings, strict=True)])


def _sizes(group: Group, target: Target) -> Iterator[tuple[Label, memory.Peak, float | None]]:
    tiny = replace(group, shape=(1, group.shape[1], *(min(n, 8) for n in group.shape[2:])))
    few, many = contenders(tiny, [target]), contenders(group, [target])
    for small, contender in zip(few, many, strict=True):
        if contender.absent:
            continue
        with contextlib.suppress(Exception):  # the row of times reports the error
            if target.mode != "jit":
                small.build()()  # loads code and tables that a library needs once
            peak, result = memory.measure(contender)
            yield contender.label, peak, _residual(group, contender, result)


def _residual(group: Group, contender: Contender, result: object) -> float | None:
    """Return how far what a contender computes is from solving K x = y, if it does that."""
    if contender.images is None or group.axis:
        return None
    return Setup(group, contender.target).residual(contender.images(result))
