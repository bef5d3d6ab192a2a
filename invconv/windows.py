"""Correlations as products of windows, where products go into an array: NumPy and CuPy.

What the T taps read for some pixels, their windows, is one matrix (T C, pixels). It is formed for a
few samples at a time, or for a band of one sample's rows, so that it stays in the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from invconv.arrays import Array, namespace, size
from invconv.stencil import Offset, Stencil
from invconv.workspaces import Workspaces

Band = tuple[slice, slice, Array]
Rooms = Workspaces[Any] | None


def correlate(
    stencil: Stencil, x: Array, *, wrap: bool, window_bytes: int, rooms: Rooms = None
) -> Array:
    """See `invconv.primitives.correlate`.

    Parameters
    ----------
    stencil, x, wrap
    window_bytes : int
        Windows that are formed at a time.
    rooms : Workspaces, optional
        Where, instead of in new memory, which takes long to get.
    """
    xp = namespace(x)
    if not wrap:
        stencil = stencil.within(tuple(x.shape[2:]))
    count, channels = stencil.taps.shape[:2]
    weights = xp.reshape(xp.permute_dims(stencil.taps, (1, 0, 2)), (channels, count * channels))
    y = xp.empty((x.shape[0], channels, size(x.shape[2:])), dtype=x.dtype)
    for part, pixels, windows in _windows(x, stencil.offsets, wrap, window_bytes, rooms):
        xp.matmul(weights, windows, out=y[part, :, pixels])
    return xp.reshape(y, x.shape)


def correlate_kernel_vjp(
    x: Array,
    y_bar: Array,
    offsets: tuple[Offset, ...],
    *,
    wrap: bool,
    window_bytes: int,
    rooms: Rooms = None,
) -> Array:
    """See `invconv.primitives.correlate_kernel_vjp`, and `correlate` for the rest."""
    xp = namespace(x)
    channels = x.shape[1]
    total = xp.zeros((channels, len(offsets) * channels), dtype=x.dtype)
    rows = xp.reshape(y_bar, (*x.shape[:2], size(x.shape[2:])))
    for part, pixels, windows in _windows(x, offsets, wrap, window_bytes, rooms):
        products = xp.matmul(rows[part, :, pixels], xp.matrix_transpose(windows))
        total += xp.sum(products, axis=0)
    return xp.permute_dims(xp.reshape(total, (channels, len(offsets), channels)), (1, 0, 2))


def _windows(
    x: Array, offsets: tuple[Offset, ...], wrap: bool, window_bytes: int, rooms: Rooms
) -> Iterator[Band]:
    """Yield (samples, pixels, their windows (b, T C, N)), zero where a tap reads nothing.

    Windows may be overwritten by the next ones.
    """
    batch, channels, rows, *others = x.shape
    if 0 in x.shape or not offsets:
        return
    inner = size(others)
    row_bytes = len(offsets) * channels * inner * x.itemsize
    samples = max(1, min(batch, window_bytes // (row_bytes * rows)))
    high = rows if samples > 1 else max(1, min(rows, window_bytes // row_bytes))
    key = samples * len(offsets) * channels * high * inner, x.dtype

    def new() -> Array:
        return namespace(x).empty(key[0], dtype=key[1])

    room = new() if rooms is None else rooms.take(key, new)
    for first, top in itertools.product(range(0, batch, samples), range(0, rows, high)):
        part = slice(first, min(first + samples, batch))
        count, bottom = part.stop - first, min(top + high, rows)
        shape = (count, len(offsets), channels, bottom - top, *others)
        block = room[: size(shape)].reshape(shape)
        for t, offset in enumerate(offsets):
            start = (top + offset[0], *offset[1:])
            _copy(x[part, ...], start, block[:, t, ...], wrap)
        pixels = slice(top * inner, bottom * inner)
        yield part, pixels, block.reshape(count, len(offsets) * channels, -1)
    if rooms is not None:
        rooms.give_back(key, room)


def _copy(x: Array, start: Offset, window: Array, wrap: bool) -> None:
    """Copy what is in x from the pixel ``start`` on into a window, zero where x is not."""
    lead = (slice(None), slice(None))
    runs = [
        _runs(s, count, n, wrap)
        for s, count, n in zip(start, window.shape[2:], x.shape[2:], strict=True)
    ]
    for axis, covered in enumerate(runs):
        low, high = (covered[0][0].start, covered[-1][0].stop) if covered else (0, 0)
        for blank in (slice(0, low), slice(high, window.shape[2 + axis])):
            if blank.start < blank.stop:
                window[(*lead, *[slice(None)] * axis, blank)] = 0
    for pieces in itertools.product(*runs):
        to, source = zip(*pieces, strict=True)
        window[(*lead, *to)] = x[(*lead, *source)]


def _runs(start: int, count: int, n: int, wrap: bool) -> list[tuple[slice, slice]]:
    """Return which of ``count`` places from ``start`` on are on an axis, with where there."""
    if not wrap:
        low, high = max(0, -start), min(count, n - start)
        return [(slice(low, high), slice(start + low, start + high))] if low < high else []
    start %= n
    first = min(count, n - start)
    runs = [(slice(0, first), slice(start, start + first))]
    return runs if first == count else [*runs, (slice(first, count), slice(0, count - first))]
