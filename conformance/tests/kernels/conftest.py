"""Memory on both sides of arrays and buffers must stay as it is; buffers begin full of NaN.

What XLA gives a handler is such a buffer, which `test_kernels` fills.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from invconv.kernels.cpu import compiled
from invconv.kernels.cpu.correlate import correlation
from invconv.kernels.cpu.program import addresses
from invconv.kernels.cpu.spectral import factors, product

_ASIDE = b"\xff" * 64
_in_buffers = compiled.in_buffers


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (compiled, correlation, factors, product):
        monkeypatch.setattr(module, "in_buffers", _watched)


def _watched(size: int, workers: int, work: Any, before: Any = (), *rest: Any, **last: Any) -> None:
    def inside(*given: Any) -> None:
        z, i = given[len(before)], len(before)
        ctypes.memset(z, 0xFF, size + 128)  # NaN of either dtype
        ends = [(ctypes.c_char * 64).from_address(z + n) for n in (0, 64 + size)]
        work(*given[:i], z + 64, *given[i + 1 :])
        assert {end.raw for end in ends} == {_ASIDE}

    _in_buffers(size + 128, workers, inside, before, *rest, **last)


def between_nans(run: Callable[..., object], y: Any, workers: int) -> Any:
    """Return what ``run`` makes of images, in memory that is NaN, and stays NaN around it."""
    both = np.full((2, len(y) + 2, *y.shape[1:]), np.nan, y.dtype)
    both[0, 1:-1] = y
    run(*addresses(*both[:, 1]), len(y), workers, both)
    assert np.isnan(both[:, [0, -1]]).all()
    np.testing.assert_array_equal(both[0, 1:-1], y)
    return both[1, 1:-1]
