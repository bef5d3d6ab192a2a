"""Correlations on PyTorch: its convolution, the compiled kernel or products on windows."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F

from invconv.kernels.compiled import available
from invconv.kernels.correlation import compiled_correlation
from invconv.kernels.gram import compiled_kernel_vjp
from invconv.primitives import fold, pad_periodic, shifts
from invconv.stencil import Offset, reaching

Tensor: TypeAlias = torch.Tensor
Shape: TypeAlias = tuple[int, ...]

_WINDOW_BYTES = 2**20  # of windows at a time: as many samples as stay in the cache
_FEW, _NARROW = 256, 24  # pixels and channels: see `prefers_kernel`
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Grid:
    """The regular grid of taps that holds a stencil's offsets.

    Attributes
    ----------
    taps : tuple of int
        The taps that count, in the order of `places`.
    places : tuple of int
        The flat index of each in the grid.
    low, high : tuple of int
        The first and last offset along each axis.
    spacing, size : tuple of int
        Of the grid, per axis.
    """

    taps: tuple[int, ...]
    places: tuple[int, ...]
    low: Offset
    high: Offset
    spacing: Offset
    size: Shape


@functools.lru_cache(maxsize=256)
def grid_of(offsets: tuple[Offset, ...], wrap: bool, shape: Shape) -> Grid | None:
    """Return the grid of the offsets that count, or None where no tap reaches a pixel."""
    if wrap:
        offsets = tuple(fold(offset, shape) for offset in offsets)
    taps = tuple(reaching(offsets, shape))
    if not taps:
        return None
    along = list(zip(*(offsets[t] for t in taps), strict=True))
    low, high = tuple(map(min, along)), tuple(map(max, along))
    spacing = tuple(
        math.gcd(*(o - lo for o in axis)) or 1 for axis, lo in zip(along, low, strict=True)
    )
    size = tuple((h - lo) // s + 1 for h, lo, s in zip(high, low, spacing, strict=True))
    places = []
    for t in taps:
        place = 0
        for o, lo, s, n in zip(offsets[t], low, spacing, size, strict=True):
            place = place * n + (o - lo) // s
        places.append(place)
    return Grid(taps, tuple(places), low, high, spacing, size)


def correlate(offsets: tuple[Offset, ...], wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    """See `invconv.primitives.correlate`."""
    shape = tuple(x.shape[2:])
    grid = grid_of(offsets, wrap, shape)
    if grid is None or x.numel() == 0:
        return torch.zeros_like(x)
    if prefers_kernel(x):
        return correlate_compiled(offsets, wrap, taps, x)
    if _prefers_windows(x, grid):
        return _correlate_windows(offsets, wrap, taps, x)
    return convolution(grid, wrap, taps, x)


def convolution(grid: Grid, wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    """Return the correlation by PyTorch's own convolution."""
    kernel = _kernel(grid, taps)
    conv = _CONV[x.ndim - 2]
    if wrap or any(lo != -h for lo, h in zip(grid.low, grid.high, strict=True)):
        return conv(_padded(x, grid, wrap), kernel, dilation=grid.spacing)
    return conv(x, kernel, padding=grid.high, dilation=grid.spacing)


def correlate_kernel_vjp(
    offsets: tuple[Offset, ...], wrap: bool, x: Tensor, y_bar: Tensor
) -> Tensor:
    """See `invconv.primitives.correlate_kernel_vjp`."""
    shape, channels = tuple(x.shape[2:]), x.shape[1]
    grid = grid_of(offsets, wrap, shape)
    if grid is None or x.numel() == 0:
        return x.new_zeros((len(offsets), channels, channels))
    if prefers_kernel(x):
        return compiled_vjp(offsets, wrap, x, y_bar)
    if _prefers_windows(x, grid):
        return _windows_vjp(offsets, wrap, x, y_bar)
    return convolution_vjp(grid, len(offsets), wrap, x, y_bar)


def convolution_vjp(grid: Grid, count: int, wrap: bool, x: Tensor, y_bar: Tensor) -> Tensor:
    """Return the gradient by ``count`` taps by PyTorch's own convolution."""
    axes, channels = x.ndim - 2, x.shape[1]
    like = x.new_empty((channels, channels, *grid.size))
    zero, one = [0] * axes, [1] * axes
    operands = (y_bar, _padded(x, grid, wrap), like, None)
    how = (one, zero, list(grid.spacing), False, zero, 1, (False, True, False))
    _, kernel_bar, _ = torch.ops.aten.convolution_backward(*operands, *how)
    flat = kernel_bar.reshape(channels, channels, -1).permute(2, 0, 1)
    grads = [x.new_zeros((channels, channels))] * count
    for t, place in zip(grid.taps, grid.places, strict=True):
        grads[t] = flat[place]
    return torch.stack(grads)


def prefers_kernel(x: Tensor) -> bool:
    """Whether the compiled kernel is the faster one by a fifth, forward and gradient.

    ``python -m invconv_benchmarks.torch_convolutions`` compares them: PyTorch's own convolution is
    faster in float32 only, with many channels on few pixels, which leave vectors half empty.
    """
    if not in_host_memory(x) or not x.is_contiguous() or not available(x.element_size()):
        return False
    return bool(x.dtype == torch.float64 or x[0, 0].numel() >= _FEW or x.shape[1] <= _NARROW)


def in_host_memory(x: Tensor) -> bool:
    """Tell whether a tensor's numbers are in host memory; fake ones have none."""
    return bool(x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter))


def correlate_compiled(offsets: tuple[Offset, ...], wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    """Return the correlation by the compiled kernel; some tap reaches a pixel."""
    found = compiled_correlation(x.shape[1], tuple(x.shape[2:]), offsets, wrap, x.element_size())
    assert found is not None
    x, taps = x.detach().resolve_neg(), taps.detach().resolve_neg().contiguous()
    y = torch.empty_like(x)
    addresses = taps.data_ptr(), x.data_ptr(), y.data_ptr()
    found.run(*addresses, len(x), torch.get_num_threads(), taps, x, y)
    return y


def compiled_vjp(offsets: tuple[Offset, ...], wrap: bool, x: Tensor, y_bar: Tensor) -> Tensor:
    """Return the gradient by the taps by the compiled kernel."""
    images, bars = (a.contiguous().numpy(force=True) for a in (x, y_bar))
    workers: int = torch.get_num_threads()
    return torch.from_numpy(compiled_kernel_vjp(images, bars, offsets, wrap, workers))


def _prefers_windows(x: Tensor, grid: Grid) -> bool:
    """Whether the product on windows is the faster one (measured, on a CPU), or the only one.

    PyTorch has no convolution of four axes, and its float64 one is slow on a CPU once it leaves
    the cache; a grid with few taps in it would be mostly zeros.
    """
    if x.ndim - 2 not in _CONV or math.prod(grid.size) > 4 * len(grid.taps):
        return True
    large = x.numel() * x.element_size() > _WINDOW_BYTES // 2
    return bool(large and x.device.type == "cpu" and x.dtype == torch.float64)


def _kernel(grid: Grid, taps: Tensor) -> Tensor:
    """Return the taps as PyTorch's kernel (C, C, *size); taps at one place add up."""
    count, channels = math.prod(grid.size), taps.shape[1]
    if grid.places == tuple(range(len(taps))) and len(taps) == count:
        full = taps
    else:
        found: dict[int, Tensor] = {}
        for t, place in zip(grid.taps, grid.places, strict=True):
            found[place] = found[place] + taps[t] if place in found else taps[t]
        blank = taps.new_zeros((channels, channels))
        full = torch.stack([found.get(place, blank) for place in range(count)])
    return full.permute(1, 2, 0).reshape(channels, channels, *grid.size)


def _padded(x: Tensor, grid: Grid, wrap: bool) -> Tensor:
    """Return x from its pixel ``low`` to ``high`` beyond the last, zero or periodic outside."""
    if wrap:
        for axis, (lo, h) in enumerate(zip(grid.low, grid.high, strict=True)):
            x = pad_periodic(x, 2 + axis, max(0, -lo), max(0, h))
        crop = [(min(0, -lo), min(0, h)) for lo, h in zip(grid.low, grid.high, strict=True)]
    else:
        crop = [(-lo, h) for lo, h in zip(grid.low, grid.high, strict=True)]
    sides = [side for pair in reversed(crop) for side in pair]
    return F.pad(x, sides) if any(sides) else x


def _windows(offsets: tuple[Offset, ...], wrap: bool, x: Tensor) -> tuple[list[int], Tensor]:
    """Return the taps that count and what they read, (B, T C, N)."""
    found = shifts(x, offsets, wrap)
    windows = torch.cat([window for _, window in found], dim=1)
    return [t for t, _ in found], windows.reshape(x.shape[0], -1, math.prod(x.shape[2:]))


def _parts(offsets: tuple[Offset, ...], x: Tensor) -> list[slice]:
    sample = len(offsets) * x[0].numel() * x.element_size()
    step = max(1, _WINDOW_BYTES // sample) if x.device.type == "cpu" else len(x)
    return [slice(i, min(i + step, len(x))) for i in range(0, len(x), step)]


def _correlate_windows(offsets: tuple[Offset, ...], wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    channels = x.shape[1]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for part in _parts(offsets, x):
        kept, windows = _windows(offsets, wrap, x[part])
        weights = torch.cat([taps[t] for t in kept], dim=1)
        torch.matmul(weights, windows, out=y[part].reshape(-1, channels, windows.shape[2]))
    return y


def _windows_vjp(offsets: tuple[Offset, ...], wrap: bool, x: Tensor, y_bar: Tensor) -> Tensor:
    channels = x.shape[1]
    grads = [x.new_zeros((channels, channels)) for _ in offsets]
    for part in _parts(offsets, x):
        kept, windows = _windows(offsets, wrap, x[part])
        rows = y_bar[part].reshape(windows.shape[0], channels, windows.shape[2])
        total = torch.matmul(rows, windows.mT).sum(dim=0)
        for t, grad in zip(kept, total.split(channels, dim=1), strict=True):
            grads[t] += grad
    return torch.stack(grads)
