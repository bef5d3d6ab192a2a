"""Times of calls, on the wall's clock or another: one call, and calls that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def seconds(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the time of a call, which ends when what it computes is there."""
    start = clock()
    call()
    return clock() - start


def medians(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median time of each call; they take turns, so that all meet the same load.

    Each is called once before, which compiles, plans and fills caches.
    """
    for call in calls.values():
        call()
    return {name: statistics.median(times) for name, times in samples(calls, rounds).items()}


def samples(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warm: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return so many times of each call; they take turns, one call each.

    Calls of fewer seconds than ``warm`` are preceded by one that does not count: the cache holds
    what others left.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken = seconds(call, clock)
            times[name].append(seconds(call, clock) if taken < warm else taken)
    return times
