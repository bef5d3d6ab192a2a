"""Runs of a comparison in processes of one thread each: models of this size gain nothing by two."""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.compare.outcome import Job, Outcome, perform
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.data.users_data import load
from invconv_benchmarks.density.training.run import Progress
from invconv_benchmarks.measure import processes
from invconv_conformance.libraries.environment import settings

_OFTEN = 0.5  # seconds between two reports of a run


def run(
    plan: Callable[[Mapping[str, Outcome]], Sequence[Job]],
    data: tuple[str, Path | None],
    folder: Path,
    workers: int,
    report: Callable[[str, Progress], None],
    finished: Callable[[str, Outcome], None],
) -> dict[str, Outcome]:
    """Perform a plan's jobs, and return their outcomes by name; not all if the user interrupts.

    Parameters
    ----------
    plan : callable
        Returns the jobs that are left, given the outcomes: asked anew after each. Begun in its
        order.
    data : (name, path)
        As `load` takes them.
    folder : Path
        Each job has a folder of its name in it.
    workers : int
        How many at a time.
    report, finished : callable
        Are told the job's name and where it is, or what came out.

    Raises
    ------
    ValueError, OSError
        What stopped a job, other than divergence; the others were stopped and saved.
    """
    messages, stop = processes.SPAWN.Queue(), processes.SPAWN.Event()
    done: dict[str, Outcome] = {}
    with processes.pool(workers, settings(1, ""), _begin, messages, stop) as pool:
        begun: dict[Job, Future[Outcome | None]] = {}

        def begin() -> dict[Future[Outcome | None], str]:
            """Submit what is new in the plan."""
            new = [job for job in plan(done) if job not in begun]
            begun.update((job, pool.submit(_perform, job, data, folder)) for job in new)
            return {begun[job]: job.name for job in new}

        try:
            _follow(begin, messages, report, finished, done)
        except KeyboardInterrupt:
            pass
        except BrokenProcessPool:
            raise CommandError(
                "a worker process was killed, perhaps for want of memory; "
                "the same command goes on from the last checkpoints"
            ) from None
        finally:
            stop.set()  # runs that go on save themselves and end
            pool.shutdown(wait=True, cancel_futures=True)
    return done


def _follow(
    begin: Callable[[], dict[Future[Outcome | None], str]],
    messages: Any,
    report: Callable[[str, Progress], None],
    finished: Callable[[str, Outcome], None],
    done: dict[str, Outcome],
) -> None:
    left = begin()
    while left:
        ended = [future for future in left if future.done()]
        try:
            report(*messages.get(timeout=0.2))
            while True:
                report(*messages.get_nowait())
        except queue.Empty:
            pass
        for future in ended:
            name = left.pop(future)
            outcome = future.result()
            if outcome is not None:
                done[name] = outcome
                finished(name, outcome)
                left |= begin()


_messages: Any = None
_stop: Any = None


def _begin(messages: Any, stop: Any) -> None:
    """Prepare a worker process."""
    global _messages, _stop
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sets `stop` instead
    torch.set_num_threads(1)
    messages.cancel_join_thread()  # do not wait until the parent has read all messages
    _messages, _stop = messages, stop


def _perform(job: Job, data: tuple[str, Path | None], folder: Path) -> Outcome | None:
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.measured or progress.notes or now - last > _OFTEN:
            _messages.put((job.name, progress))
            last = now

    return perform(job, _data(*data), folder / job.name, report, lambda: bool(_stop.is_set()))


@lru_cache(maxsize=1)
def _data(name: str, path: Path | None) -> Dataset:
    return load(name, path)
