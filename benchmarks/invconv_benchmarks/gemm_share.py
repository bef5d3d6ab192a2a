"""How much of NumPy's inverse is spent inside matrix products.

``OMP_NUM_THREADS=1 python -m invconv_benchmarks.gemm_share`` times a prepared inverse of 16 x 48 x
64 x 64 with a clock around every product, and without. The share is of the run with the clocks;
what they cost is the difference of the two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import numpy as np

import invconv as ic
from invconv.numpy_primitives import STRIDED, Floats, Solver
from invconv.replay import Call

SHAPE = (16, 48, 64, 64)
ROUNDS = 15


class Clock:
    """The seconds that are spent in NumPy's products."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Call) -> Call:
        """Return the call with a clock around it."""

        def run() -> None:
            start = time.perf_counter()
            call()
            self.seconds += time.perf_counter() - start

        return run

    def matmul(self, *arrays: Floats) -> None:
        """Form a product now."""
        self.timed(lambda: np.matmul(*arrays))()

    def product(self, a: Floats, b: Floats, out: Floats, plus: Floats | None) -> list[Call]:
        """Return the calls that form a product."""
        return [self.timed(call) for call in STRIDED.product(a, b, out, plus)]


def measure(shape: tuple[int, ...] = SHAPE, rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Return the medians of a call's seconds, of a counted call's, and of its products'."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(shape, np.float32)
    conv = ic.AutoregressiveConv.init(shape[1], kernel_size=2, rng=rng, like=y)
    prepared = conv.prepare(shape[2:], check=False)
    clock, samples = Clock(), []
    counted = replace(STRIDED, matmul=clock.matmul, product=clock.product)
    prepared.inverse(y)
    with mock.patch.object(Solver, "library", counted):
        prepared.inverse(y)  # which finds out what to call
    for _ in range(rounds):
        plain = seconds(lambda: prepared.inverse(y))
        clock.seconds = 0.0
        with mock.patch.object(Solver, "library", counted):
            samples.append((plain, seconds(lambda: prepared.inverse(y)), clock.seconds))
    plain, total, products = (statistics.median(s) for s in zip(*samples, strict=True))
    return plain, total, products


def seconds(call: Callable[[], object]) -> float:
    """Return what a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the share."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    plain, total, products = measure()
    print(f"NumPy {np.__version__}, {' x '.join(map(str, SHAPE))}, float32, one 2 x 2 corner")
    print(
        f"inverse {1e3 * plain:.1f} ms; counted {1e3 * total:.1f} ms, products {1e3 * products:.1f}"
    )
    print(f"{products / total:.0%} of the time is inside matrix products")


if __name__ == "__main__":
    main()
