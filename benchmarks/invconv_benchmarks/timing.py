"""Wall-clock times of calls, once what they computed is there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from invconv_conformance.library import Library


def median_seconds(function: Callable[[], Any], library: Library, rounds: int = 3) -> float:
    """Return the median time of a call after one that warms up (compiles, plans, fills caches)."""
    library.synchronise(function())
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        library.synchronise(function())
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)
