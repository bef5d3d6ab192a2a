"""The best rates that a library reaches here: of a large matrix product, and of a large copy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from invconv_benchmarks.measure.contender import Call, wait
from invconv_benchmarks.measure.gpu import clock
from invconv_conformance.libraries.table import Target

# the order of the matrices, the bytes that are copied (beyond the caches), and calls in a row
_ON_CPU = 1024, 2**26, 1
_ON_GPU = 8192, 2**30, 10  # fewer calls would time the launch
_ROUNDS = 7


@dataclass(frozen=True)
class Ceiling:
    """The best that a library reached on a device.

    Attributes
    ----------
    library, device, dtype : str
    threads : int
    gemm_flops : float
        The flops a second of a matrix product.
    copy_bytes : float
        The bytes a second that a copy reads and writes.
    """

    library: str
    device: str
    dtype: str
    threads: int
    gemm_flops: float
    copy_bytes: float

    @property
    def place(self) -> tuple[str, str, str, int]:
        """The library, device, dtype and number of threads."""
        return self.library, self.device, self.dtype, self.threads

    def best(self, other: Ceiling) -> Ceiling:
        """Return the larger numbers of two ceilings of one place."""
        return replace(
            self,
            gemm_flops=max(self.gemm_flops, other.gemm_flops),
            copy_bytes=max(self.copy_bytes, other.copy_bytes),
        )


def ceiling(target: Target, dtype: str, threads: int) -> Ceiling:
    """Measure a ceiling: the best of several rounds, which was reached at least once."""
    order, nbytes, calls = _ON_GPU if target.on_cuda else _ON_CPU
    values = np.random.default_rng(0).standard_normal((order, order), np.float32)
    matrix = target.asarray(values, dtype)
    numbers = target.asarray(np.ones(nbytes // np.dtype(dtype).itemsize, dtype), dtype)
    product = target.compile(lambda a: a @ a)
    copy = target.compile(lambda a: -a)  # a copy that compilers cannot remove
    return Ceiling(
        target.library.name,
        target.device,
        dtype,
        threads,
        gemm_flops=2 * order**3 / _best(target, lambda: product(matrix), calls),
        copy_bytes=2 * nbytes / _best(target, lambda: copy(numbers), calls),
    )


def _best(target: Target, call: Call, calls: int) -> float:
    wait(target, call())
    return min(clock(target)(call, calls) for _ in range(_ROUNDS))
