"""What the machine can do at best through a library: a large matrix product, a large copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from invconv_benchmarks.contender import Call, wait
from invconv_benchmarks.gpu import clock
from invconv_conformance.libraries import Target

# the order of the matrices, the bytes that are copied (beyond the caches), and calls in a row
_ON_CPU = 1024, 2**26, 1
_ON_GPU = 8192, 2**30, 10  # else it is the launch that is timed
_ROUNDS = 7


def ceilings(target: Target, dtype: str) -> dict[str, Any]:
    """Return the flops a second of a GEMM, and the bytes a second that a copy reads and writes.

    The best of several rounds: a ceiling is what was reached at least once.
    """
    order, nbytes, calls = _ON_GPU if target.device.startswith("cuda") else _ON_CPU
    values = np.random.default_rng(0).standard_normal((order, order), np.float32)
    matrix = target.asarray(values, dtype)
    numbers = target.asarray(np.ones(nbytes // np.dtype(dtype).itemsize, dtype), dtype)
    product = target.compile(lambda a: a @ a)
    copy = target.compile(lambda a: -a)  # a copy that no compiler leaves out
    return {
        "library": target.library.name,
        "device": target.device,
        "dtype": dtype,
        "gemm_flops": 2 * order**3 / _best(target, lambda: product(matrix), calls),
        "copy_bytes": 2 * nbytes / _best(target, lambda: copy(numbers), calls),
    }


def _best(target: Target, call: Call, calls: int) -> float:
    wait(target, call())
    return min(clock(target)(call, calls) for _ in range(_ROUNDS))
