"""How much of NumPy's inverse is spent inside matrix products.

``OMP_NUM_THREADS=1 python -m invconv_benchmarks.gemm_share`` times a prepared inverse of 16 x 48 x
64 x 64 with a clock around every product, and without. The share is of the run with the clocks;
what they cost is the difference of the two.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import invconv as ic
from invconv.numpy_primitives import Solver

SHAPE = (16, 48, 64, 64)
ROUNDS = 15


class Counted:
    """NumPy with a clock in its matrix product."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def matmul(self, *args: Any, **kwargs: Any) -> Any:
        """Return the product, and count its time."""
        start = time.perf_counter()
        result = np.matmul(*args, **kwargs)
        self.seconds += time.perf_counter() - start
        return result


def measure(shape: tuple[int, ...] = SHAPE, rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Return the medians of a call's seconds, of a counted call's, and of its products'."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(shape, np.float32)
    conv = ic.AutoregressiveConv.init(shape[1], kernel_size=2, rng=rng, like=y)
    prepared = conv.prepare(shape[2:], check=False)
    samples = []
    prepared.inverse(y)
    for _ in range(rounds):
        counted = Counted()
        plain = _seconds(lambda: prepared.inverse(y))
        with mock.patch.object(Solver, "xp", counted):
            samples.append((plain, _seconds(lambda: prepared.inverse(y)), counted.seconds))
    plain, total, products = (statistics.median(s) for s in zip(*samples, strict=True))
    return plain, total, products


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the share."""
    plain, total, products = measure()
    print(f"NumPy {np.__version__}, {' x '.join(map(str, SHAPE))}, float32, one 2 x 2 corner")
    print(
        f"inverse {1e3 * plain:.1f} ms; counted {1e3 * total:.1f} ms, products {1e3 * products:.1f}"
    )
    print(f"{products / total:.0%} of the time is inside matrix products")


if __name__ == "__main__":
    main()
