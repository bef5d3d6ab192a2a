"""NumPy's native primitives: one matrix product on a strided copy of the windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.linalg import get_blas_funcs

from invconv.primitives import shifts
from invconv.stencil import Offset, Stencil

Floats = np.ndarray[Any, Any]

# Windows are formed for as many samples at a time as stay in the cache.
_WINDOW_BYTES = 2**21


def correlate(stencil: Stencil, x: Floats, *, wrap: bool = False) -> Floats:
    """See `invconv.primitives.correlate`."""
    if not wrap:
        stencil = stencil.within(x.shape[2:])
    count, channels = stencil.taps.shape[:2]
    weights = stencil.taps.transpose(1, 0, 2).reshape(channels, count * channels)
    y = np.empty(x.shape, x.dtype)
    for part, windows in _windows(x, stencil.offsets, wrap):
        np.matmul(weights, windows, out=y[part].reshape(windows.shape[0], channels, -1))
    return y


def correlate_kernel_vjp(
    x: Floats, y_bar: Floats, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Floats:
    """See `invconv.primitives.correlate_kernel_vjp`."""
    channels = x.shape[1]
    total = np.zeros((channels, len(offsets) * channels), x.dtype)
    for part, windows in _windows(x, offsets, wrap):
        rows = y_bar[part].reshape(windows.shape[0], channels, -1)
        total += np.matmul(rows, windows.transpose(0, 2, 1)).sum(axis=0)
    return total.reshape(channels, len(offsets), channels).transpose(1, 0, 2)


def triangular_solve(matrix: Floats, rhs: Floats, *, lower: bool) -> Floats:
    """See `invconv.primitives.triangular_solve`."""
    trsm = get_blas_funcs("trsm", (matrix, rhs))
    # X^T T^T = B^T, since the transpose of a row-major B is what BLAS takes without a copy
    x: Floats = trsm(1.0, matrix, rhs.T, side=1, lower=lower, trans_a=1).T
    return x


def _windows(x: Floats, offsets: tuple[Offset, ...], wrap: bool) -> Iterator[tuple[slice, Floats]]:
    """Yield (slice of samples, their windows (b, T C, N)), zero where a tap reaches nothing."""
    batch, channels, *spatial = x.shape
    sample = max(1, len(offsets) * channels * int(np.prod(spatial)) * x.itemsize)
    step = max(1, _WINDOW_BYTES // sample)
    for start in range(0, batch, step):
        part = slice(start, min(start + step, batch))
        block = np.zeros((part.stop - start, len(offsets), channels, *spatial), x.dtype)
        for t, shifted in shifts(x[part], offsets, wrap):
            block[:, t] = shifted
        yield part, block.reshape(part.stop - start, len(offsets) * channels, -1)
