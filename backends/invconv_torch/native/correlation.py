"""Correlations on PyTorch: by the compiled kernel on the CPU, or by its own convolution."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F

from invconv.arrays.stencil import Offset, Stencil, reaching
from invconv.kernels import primitives
from invconv.kernels.cpu.correlate.bands import Places
from invconv.kernels.cpu.correlate.correlation import compiled_correlation
from invconv.kernels.cpu.correlate.gram import compiled_gram
from invconv.kernels.cpu.machine import reason
from invconv.kernels.families import StencilFamily, TapsFamily
from invconv.kernels.primitives import fold, pad_periodic
from invconv_torch.native.host import in_host_memory
from invconv_torch.precision import full_precision

Tensor: TypeAlias = torch.Tensor
Shape: TypeAlias = tuple[int, ...]

# see `prefers_kernel_for_gradient`: channels, channels times taps by itemsize, bytes of a batch
_WIDE, _SUMS = 32, {4: 224, 8: 300}
_BATCH = 2**16, 2**22
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Grid:
    """The regular grid of taps that holds a stencil's offsets.

    Attributes
    ----------
    taps : tuple of int
        The taps that reach a pixel, in the order of `places`.
    places : tuple of int
        The flat index of each of these taps in the grid.
    low, high : tuple of int
        The first and last offset along each axis.
    spacing, size : tuple of int
        Distance and number of taps of the grid, per axis.
    """

    taps: tuple[int, ...]
    places: tuple[int, ...]
    low: Offset
    high: Offset
    spacing: Offset
    size: Shape


@functools.lru_cache(maxsize=256)
def grid_of(offsets: tuple[Offset, ...], wrap: bool, shape: Shape) -> Grid | None:
    """Return the grid of the taps that reach a pixel, or None if no tap does."""
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


def convolve(offsets: tuple[Offset, ...], wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    """Return the correlation by PyTorch's own operations."""
    grid = grid_of(offsets, wrap, tuple(x.shape[2:]))
    if grid is None or x.numel() == 0:
        return torch.zeros_like(x)
    if not has_convolution(x, grid):
        with full_precision(x):
            return primitives.correlate.agnostic(Stencil(offsets, taps), x, wrap=wrap)
    return convolution(grid, wrap, taps, x)


def convolution(grid: Grid, wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    """Return the correlation by PyTorch's own convolution."""
    kernel = _kernel(grid, taps)
    conv = _CONV[x.ndim - 2]
    with full_precision(x):
        if wrap or any(lo != -h for lo, h in zip(grid.low, grid.high, strict=True)):
            return conv(_padded(x, grid, wrap), kernel, dilation=grid.spacing)
        return conv(x, kernel, padding=grid.high, dilation=grid.spacing)


def convolve_vjp(offsets: tuple[Offset, ...], wrap: bool, x: Tensor, y_bar: Tensor) -> Tensor:
    """Return the gradient by the taps by PyTorch's own operations."""
    grid, channels = grid_of(offsets, wrap, tuple(x.shape[2:])), x.shape[1]
    if grid is None or x.numel() == 0:
        return x.new_zeros((len(offsets), channels, channels))
    if not has_convolution(x, grid):
        with full_precision(x):
            return primitives.correlate_kernel_vjp.agnostic(x, y_bar, offsets, wrap=wrap)
    return convolution_vjp(grid, len(offsets), wrap, x, y_bar)


def convolution_vjp(grid: Grid, count: int, wrap: bool, x: Tensor, y_bar: Tensor) -> Tensor:
    """Return the gradient by ``count`` taps by PyTorch's own convolution."""
    axes, channels = x.ndim - 2, x.shape[1]
    like = x.new_empty((channels, channels, *grid.size))
    zero, one = [0] * axes, [1] * axes
    operands = (y_bar, _padded(x, grid, wrap), like, None)
    how = (one, zero, list(grid.spacing), False, zero, 1, (False, True, False))
    with full_precision(x):
        _, kernel_bar, _ = torch.ops.aten.convolution_backward(*operands, *how)
    flat = kernel_bar.reshape(channels, channels, -1).permute(2, 0, 1)
    grads = [x.new_zeros((channels, channels))] * count
    for t, place in zip(grid.taps, grid.places, strict=True):
        grads[t] = flat[place]
    return torch.stack(grads)


def prefers_kernel(x: Tensor) -> bool:
    """Tell whether the compiled kernel computes forward maps: it does if it runs.

    ``python -m invconv_benchmarks.studies.choices`` compares it with PyTorch's own
    convolution. Gradients of mirrored images use the kernel, too: PyTorch would pad both images.
    """
    if not (in_host_memory(x) and x.is_contiguous() and x.numel()):
        return False
    return reason(x.element_size()) is None


def prefers_kernel_for_gradient(x: Tensor, taps: int) -> bool:
    """Tell whether the compiled kernel computes the gradient by ``taps`` taps.

    PyTorch computes one large product of matrices, which is faster for many channels and taps if
    the batch is neither tiny nor larger than the cache. The study of `prefers_kernel` has the
    limits.
    """
    if not prefers_kernel(x):
        return False
    channels, (least, most) = x.shape[1], _BATCH
    few = channels < _WIDE or channels * taps <= _SUMS[x.element_size()]
    return few or not least <= x.nbytes < most


def correlate_compiled(family: TapsFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return the correlation by the compiled kernel, which reads the weights in place."""
    settings = family.offsets, family.wrap, x.element_size()
    kernel = compiled_correlation(x.shape[1], tuple(x.shape[2:]), *settings)
    if kernel is None:  # no tap reaches a pixel
        return torch.zeros_like(x)
    if x.is_neg() or w.is_neg():
        x, w = x.resolve_neg(), w.resolve_neg()
    w, first, places = _placed(family, w)
    y = torch.empty_like(x)
    images = x.data_ptr(), y.data_ptr()
    kernel.run(first, places, *images, x.shape[0], torch.get_num_threads(), w, x, y)
    return y


def compiled_vjp(family: TapsFamily, x: Tensor, y_bar: Tensor) -> Tensor:
    """Return the gradient by the weights by the compiled kernel; masked entries are zero."""
    channels, settings = x.shape[1], (family.offsets, family.wrap, x.element_size())
    shape = family.shape_of(x)
    gram = compiled_gram(channels, tuple(x.shape[2:]), *settings)
    if gram is None:  # no tap reaches a pixel
        return x.new_zeros(shape)
    x, y_bar = x.resolve_neg().contiguous(), y_bar.resolve_neg().contiguous()
    batch = x.shape[0]
    parts = gram.parts(batch, torch.get_num_threads())
    totals = x.new_zeros(shape if parts == 1 else (parts, *shape))
    total = totals if parts == 1 else totals[0]
    _, first, places = _placed(family, total)
    given = x.data_ptr(), y_bar.data_ptr(), first, places, total.nbytes
    gram.run(*given, batch, parts, x, y_bar, totals)
    return total if parts == 1 else totals.sum(0)


def _placed(family: TapsFamily, w: Tensor) -> tuple[Tensor, int, Places]:
    """Return weights, the address of the first tap's matrix, and the layout of all matrices."""
    stride = w.stride()
    if isinstance(family, StencilFamily):  # the taps come first
        return w, w.data_ptr(), (*stride, 0)
    if not w.is_contiguous() and stride[2:] != _dense(family.kernel_size):
        # the taps of a pair of channels must be adjacent
        w = w.contiguous()
        stride = w.stride()
    first = w.data_ptr() + family.first * w.element_size()
    return w, first, (1, stride[0], stride[1], family.kept)


@functools.lru_cache(maxsize=256)
def _dense(shape: Shape) -> Shape:
    """Return the strides of a contiguous array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def has_convolution(x: Tensor, grid: Grid) -> bool:
    """Tell whether PyTorch's convolution can be used: at most three axes, and few missing taps."""
    return x.ndim - 2 in _CONV and math.prod(grid.size) <= 4 * len(grid.taps)


def _kernel(grid: Grid, taps: Tensor) -> Tensor:
    """Return the taps as PyTorch's kernel (C, C, *size); taps at one place add up."""
    count, channels = math.prod(grid.size), taps.shape[1]
    if grid.places == tuple(range(len(taps))) and len(taps) == count:
        full = taps
    else:
        by_place: dict[int, Tensor] = {}
        for t, place in zip(grid.taps, grid.places, strict=True):
            by_place[place] = by_place[place] + taps[t] if place in by_place else taps[t]
        blank = taps.new_zeros((channels, channels))
        full = torch.stack([by_place.get(place, blank) for place in range(count)])
    return full.permute(1, 2, 0).reshape(channels, channels, *grid.size)


def _padded(x: Tensor, grid: Grid, wrap: bool) -> Tensor:
    """Return x extended from pixel ``low`` to ``high`` beyond the last, zero or periodic."""
    if wrap:
        for axis, (lo, h) in enumerate(zip(grid.low, grid.high, strict=True)):
            x = pad_periodic(x, 2 + axis, max(0, -lo), max(0, h))
        crop = [(min(0, -lo), min(0, h)) for lo, h in zip(grid.low, grid.high, strict=True)]
    else:
        crop = [(-lo, h) for lo, h in zip(grid.low, grid.high, strict=True)]
    sides = [side for pair in reversed(crop) for side in pair]
    return F.pad(x, sides) if any(sides) else x
