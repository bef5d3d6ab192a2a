"""A process that measures: its threads are limited before a library is loaded."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import warnings
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from invconv_benchmarks.memory import ENVIRONMENT
from invconv_benchmarks.suites import Group
from invconv_conformance.worker_environment import environment, settings


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

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


def run(job: Job) -> Generator[tuple[str, Any], None, None]:
    """Yield ("pools", …), ("ceiling", …) and ("group", …) messages of a worker process.

    A worker that dies, of too little memory perhaps, gives an error for its group, and another
    worker goes on with the rest.
    """
    left = list(job.groups)
    while left:
        with contextlib.closing(_messages(replace(job, groups=tuple(left)))) as messages:
            for kind, message in messages:
                yield kind, message
                if kind == "group":
                    left.pop(0)
        if left:
            yield "group", {"group": asdict(left.pop(0)), "rows": [], "error": "the process died"}


def _messages(job: Job) -> Generator[tuple[str, Any], None, None]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    with environment(settings(job.threads, job.cache) | (ENVIRONMENT if job.memory else {})):
        process = context.Process(target=work, args=(job, there), daemon=True)
        process.start()
    there.close()
    try:
        with contextlib.suppress(EOFError):
            while True:
                yield here.recv()
    finally:
        process.terminate()
        process.join()


def work(job: Job, out: Connection) -> None:
    """Do a job in this process and send what is found."""
    from threadpoolctl import threadpool_info, threadpool_limits

    from invconv_benchmarks.gpu import full_precision
    from invconv_benchmarks.threads import set_number

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and keeps what there is
    warnings.simplefilter("ignore")
    targets = targets_of(job.targets)
    for target in targets:
        full_precision(target)
        set_number(target.library.name, job.threads)
    with threadpool_limits(job.threads):
        if not job.memory:
            _send_ceilings(job, targets, out)
        for group in job.groups:
            rows = _memory(group, targets) if job.memory else _times(group, targets, job.seconds)
            out.send(("group", {"group": asdict(group), "rows": rows, "error": ""}))
        told = ("user_api", "internal_api", "version", "architecture", "num_threads")
        out.send(("pools", [{k: pool.get(k) for k in told} for pool in threadpool_info()]))
    out.close()


def _send_ceilings(job: Job, targets: list[Any], out: Connection) -> None:
    from invconv_benchmarks.ceilings import ceilings

    for target in targets:
        for dtype in sorted({g.dtype for g in job.groups}):
            if target.mode != "graph":
                out.send(("ceiling", ceilings(target, dtype)))


def targets_of(names: Sequence[tuple[str, str]]) -> list[Any]:
    """Return the targets of (library, device) names, compiled where the library compiles."""
    from invconv_benchmarks.gpu import with_graphs
    from invconv_conformance.libraries import LIBRARIES, Target

    known = {library.name: library for library in LIBRARIES}
    plain = []
    for name, device in names:
        library = known[name]
        library.devices()  # JAX learns of float64 here
        plain.append(Target(library, device, "jit" if "jit" in library.modes else "eager"))
    return with_graphs(plain)


def _contenders(group: Group, targets: list[Any]) -> list[Any]:
    from invconv_benchmarks import ours, plain, references
    from invconv_benchmarks.contender import Setup

    setups = [Setup(group, target) for target in targets]
    return [c for s in setups for m in (ours, plain, references) for c in m.contenders(s)]


def _name(contender: Any) -> dict[str, str]:
    target = contender.target
    return {
        "contender": contender.name,
        "role": contender.role,
        "does": contender.does,
        "library": target.library.name,
        "device": target.device,
        "mode": target.mode,
    }


def _times(group: Group, targets: list[Any], seconds: float) -> list[dict[str, Any]]:
    from invconv_benchmarks.measure import measure

    found = _contenders(group, targets)
    return [
        _name(c) | asdict(t)
        for c, t in zip(found, measure(found, seconds * len(found)), strict=True)
    ]


def _memory(group: Group, targets: list[Any]) -> list[dict[str, Any]]:
    from invconv_benchmarks.memory import measure

    rows = []
    tiny = replace(group, shape=(1, group.shape[1], *(min(n, 8) for n in group.shape[2:])))
    for target in targets:
        few, many = _contenders(tiny, [target]), _contenders(group, [target])
        for small, contender in zip(few, many, strict=True):
            if contender.absent:
                continue
            with contextlib.suppress(Exception):  # the timed row says what is wrong
                if target.mode != "jit":
                    small.build()()  # what a library loads once is not the call's
                peak, result = measure(contender)
                seen = asdict(peak) | {"residual": _residual(group, contender, result)}
                rows.append(_name(contender) | seen)
    return rows


def _residual(group: Group, contender: Any, result: Any) -> float | None:
    """Return how far what a contender computes is from solving K x = y, if it does that."""
    from invconv_benchmarks.contender import Setup

    if contender.images is None or group.axis:
        return None
    return Setup(group, contender.target).residual(contender.images(result))
