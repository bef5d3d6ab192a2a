"""Many random items in worker processes; one that hangs or dies is ended, and named."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from invconv_conformance.libraries.environment import peak_memory

Begin = Callable[[str], None]
Perform = Callable[["Batch", Begin], "Tally"]
_LONGEST_TEXT = 4096


@dataclass(frozen=True)
class Batch:
    """Items that one worker does one after the other.

    Attributes
    ----------
    perform : callable
        ``perform(batch, begin)`` does them and returns a `Tally`; ``begin(text)`` is called before
        each item, with what repeats it.
    seed : int
    first, count : int
        The numbers of the items.
    """

    perform: Perform
    seed: int
    first: int
    count: int


@dataclass
class Tally:
    """How items ended.

    Attributes
    ----------
    ends : Counter
        How many ended how.
    failures : list of str
        Those that should not have ended as they did, and how to repeat them.
    peak : int
        Bytes of memory that the worker had at most.
    """

    ends: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    peak: int = 0


def batches(perform: Perform, seed: int, count: int, size: int) -> list[Batch]:
    """Cut ``count`` items into batches."""
    return [Batch(perform, seed, i, min(size, count - i)) for i in range(0, count, size)]


def run(todo: Sequence[Batch], workers: int, longest: float) -> Iterator[tuple[Batch, Tally]]:
    """Do the batches, and yield each with its tally.

    Parameters
    ----------
    todo : sequence of Batch
    workers : int
        Processes.
    longest : float
        Seconds that an item may take.
    """
    waiting = list(reversed(todo))
    busy = [_Worker(waiting.pop()) for _ in range(min(workers, len(waiting)))]
    try:
        while busy:
            wait([w.future for w in busy], timeout=0.2, return_when=FIRST_COMPLETED)
            for worker in list(busy):
                tally = worker.poll(longest)
                if tally is None:
                    continue
                yield worker.batch, tally
                busy.remove(worker)
                if waiting:
                    busy.append(worker.next(waiting.pop()))
                else:
                    worker.end()
    finally:
        for worker in busy:
            worker.end()


class _Worker:
    """A pool of one process, which can be killed alone, and what the process says that it does."""

    def __init__(self, batch: Batch) -> None:
        context = multiprocessing.get_context("spawn")
        self._began = context.Value("d", 0.0, lock=False)
        self._doing = context.Array("c", _LONGEST_TEXT, lock=False)
        shared = (self._began, self._doing)
        self._pool = ProcessPoolExecutor(1, context, initializer=_share, initargs=shared)
        others = set(multiprocessing.active_children())
        self._give(batch)
        (self._process,) = set(multiprocessing.active_children()) - others

    def _give(self, batch: Batch) -> None:
        self.batch = batch
        self.future = self._pool.submit(_perform, batch)

    def next(self, batch: Batch) -> _Worker:
        """Return a worker at another batch: this one, if its process is alive."""
        if not self._process.is_alive():
            self.end()
            return _Worker(batch)
        self._give(batch)
        return self

    def poll(self, longest: float) -> Tally | None:
        """Return the tally of the batch, or None while it runs."""
        if self.future.done():
            try:
                return self.future.result()
            except BrokenProcessPool:
                self._process.join()
                while self._process.exitcode is None:  # the pool's thread was first, and notes it
                    time.sleep(0.01)
                return self._failed(f"ended the process with {self._process.exitcode}")
            except Exception as error:  # the judge itself failed, on an item that has a name
                return self._failed(f"raised {error!r}")
        if self._began.value and time.monotonic() - self._began.value > longest:
            self.end()
            return self._failed(f"took more than {longest:g} s")
        return None

    def _failed(self, what: str) -> Tally:
        return Tally(Counter({what: 1}), [f"{self._doing.value.decode(errors='replace')} {what}"])

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pool.shutdown(cancel_futures=True)


_shared: dict[str, Any] = {}  # in a worker process: when its item began, and what repeats it


def _share(began: Any, doing: Any) -> None:
    _shared.update(began=began, doing=doing)


def _begin(text: str) -> None:
    _shared["doing"].value = text.encode()[: _LONGEST_TEXT - 1]
    _shared["began"].value = time.monotonic()


def _perform(batch: Batch) -> Tally:
    tally = batch.perform(batch, _begin)
    _shared["began"].value = 0.0
    tally.peak = peak_memory()
    return tally
