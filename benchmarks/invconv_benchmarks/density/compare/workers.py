"""Runs of a comparison in processes of one thread each: models of this size gain nothing by two."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.compare.outcome import Job, Outcome, perform
from invconv_benchmarks.density.data.users_data import load
from invconv_benchmarks.density.training.lines import Lines
from invconv_benchmarks.measure import processes
from invconv_conformance import printing
from invconv_conformance.libraries.environment import settings

_load = lru_cache(maxsize=1)(load)
_stop: Any = None


def run(
    plan: Callable[[Mapping[str, Outcome]], Sequence[Job]],
    data: tuple[str, Path | None],
    folder: Path,
    workers: int,
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
    finished : callable
        Is told a job's name and its outcome.

    Raises
    ------
    ValueError, OSError
        What stopped a job, other than divergence; the others were stopped and saved.
    """
    stop, done = processes.SPAWN.Event(), dict[str, Outcome]()
    begun: dict[Job, Future[Outcome | None]] = {}
    with processes.pool(workers, settings(1, ""), _begin, stop) as pool:
        try:
            while left := plan(done):
                for job in left:
                    if job not in begun:
                        begun[job] = pool.submit(_perform, job, data, folder)
                wait([begun[job] for job in left], return_when=FIRST_COMPLETED)
                for job in left:
                    outcome = begun[job].result() if begun[job].done() else None
                    if outcome is not None:
                        done[job.name] = outcome
                        finished(job.name, outcome)
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


def _begin(stop: Any) -> None:
    """Prepare a worker process."""
    global _stop
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sets `stop` instead
    torch.set_num_threads(1)
    _stop = stop


def _perform(job: Job, data: tuple[str, Path | None], folder: Path) -> Outcome | None:
    lines = Lines(printing.console(), job.name)
    return perform(job, _load(*data), folder / job.name, lines, lambda: bool(_stop.is_set()))
