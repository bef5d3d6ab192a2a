"""What the machine can do at best through a library: a large matrix product, a large copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from invconv_benchmarks.contender import wait
from invconv_conformance.libraries import Target

_ORDER = 1024  # of the matrices
_BYTES = 2**26  # of what is copied, beyond the caches
_ROUNDS = 7


def ceilings(target: Target, dtype: str) -> dict[str, Any]:
    """Return the flops a second of a GEMM, and the bytes a second that a copy reads and writes.

    The best of several rounds: a ceiling is what was reached at least once.
    """
    values = np.random.default_rng(0).standard_normal((_ORDER, _ORDER))
    matrix = target.asarray(values, dtype)
    numbers = target.asarray(np.ones(_BYTES // np.dtype(dtype).itemsize), dtype)
    product = target.compile(lambda a: a @ a)
    copy = target.compile(lambda a: -a)  # a copy that no compiler leaves out
    return {
        "library": target.library.name,
        "device": target.device,
        "dtype": dtype,
        "gemm_flops": 2 * _ORDER**3 / _best(target, lambda: product(matrix)),
        "copy_bytes": 2 * _BYTES / _best(target, lambda: copy(numbers)),
    }


def _best(target: Target, call: Callable[[], Any]) -> float:
    wait(target, call())
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        wait(target, call())
        times.append(time.perf_counter() - start)
    return min(times)
