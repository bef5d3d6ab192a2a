"""A process that keeps a processor busy beside this one, when it is told to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from invconv_benchmarks.measure.contender import Call
from invconv_benchmarks.measure.processes import SPAWN

_WAIT = 120.0  # seconds that a new process may take to begin
_POLL = 2e-4


class Neighbour:
    """A process of its own that makes the same call over and over between `go` and `rest`.

    Parameters
    ----------
    build : callable
        Of the module level: plans in the other process, and returns the call.
    *args
        Its arguments.
    """

    def __init__(self, build: Callable[..., Call], *args: Any) -> None:
        self._go, self._resting = SPAWN.Event(), SPAWN.Event()
        given = (self._go, self._resting, build, args)
        self._process = SPAWN.Process(target=_work, args=given, daemon=True)

    def __enter__(self) -> Self:
        """Begin, and wait until the process could go."""
        self._process.start()
        self._await(self._resting.is_set)
        return self

    def __exit__(self, *error: object) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    def go(self) -> None:
        """Have the process make calls; return when it has begun."""
        self._go.set()
        self._await(lambda: not self._resting.is_set())

    def rest(self) -> None:
        """Have it make none; return when the last one has ended."""
        self._go.clear()
        self._await(self._resting.is_set)

    def _await(self, condition: Callable[[], bool]) -> None:
        stop = time.monotonic() + _WAIT
        while not condition():
            if not self._process.is_alive() or time.monotonic() > stop:
                raise RuntimeError("the process beside this one ended, or does not answer")
            time.sleep(_POLL)


def _work(go: Any, resting: Any, build: Callable[..., Call], args: tuple[Any, ...]) -> None:
    call = build(*args)
    call()
    while True:
        resting.set()
        go.wait()
        resting.clear()
        while go.is_set():
            call()
