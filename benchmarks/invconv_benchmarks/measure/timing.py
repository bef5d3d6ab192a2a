"""Wall-clock times of calls: one call, and medians of calls that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

K = TypeVar("K")


def seconds(call: Callable[[], Any]) -> float:
    """Return the time of a call, which ends when what it computes is there."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(calls: Mapping[K, Callable[[], Any]], rounds: int) -> dict[K, float]:
    """Return the median time of each call; they take turns, so that all meet the same load.

    Each is called once before, which compiles, plans and fills caches.
    """
    for call in calls.values():
        call()
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: statistics.median(turn[name] for turn in times) for name in calls}
