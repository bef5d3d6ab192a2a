"""Correlations on PyTorch: by the compiled kernel on the CPU, or by its own convolution."""

import math
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from invconv.arrays.stencil import Offset, Stencil
from invconv.families.convolutions import TapsFamily
from invconv.kernels import primitives
from invconv.kernels.cpu.correlate.correlation import compiled_correlation
from invconv.kernels.cpu.correlate.programs import Places
from invconv.kernels.cpu.machine import reason
from invconv.kernels.primitives import TapGrid, grid_of, pad
from invconv_torch.native.host import in_host_memory
from invconv_torch.precision import full_precision

Shape: TypeAlias = tuple[int, ...]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def convolve(offsets: tuple[Offset, ...], wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
    """Return the correlation by PyTorch's own operations."""
    grid = grid_of(offsets, wrap, tuple(x.shape[2:]))
    if grid is None or x.numel() == 0:
        return torch.zeros_like(x)
    if not has_convolution(x, grid):
        with full_precision(x):
            return primitives.correlate.agnostic(Stencil(offsets, taps), x, wrap=wrap)
    return convolution(grid, wrap, taps, x)


def convolution(grid: TapGrid, wrap: bool, taps: Tensor, x: Tensor) -> Tensor:
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


def convolution_vjp(grid: TapGrid, count: int, wrap: bool, x: Tensor, y_bar: Tensor) -> Tensor:
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
    """Tell whether the compiled kernel computes correlations and gradients: it does if it runs."""
    if not (in_host_memory(x) and x.is_contiguous() and x.numel()):
        return False
    return reason(x.element_size()) is None


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
    correlation = compiled_correlation(channels, tuple(x.shape[2:]), *settings)
    if correlation is None:  # no tap reaches a pixel
        return x.new_zeros(shape)
    x, y_bar = x.resolve_neg().contiguous(), y_bar.resolve_neg().contiguous()
    batch = x.shape[0]
    parts = correlation.parts(batch, torch.get_num_threads())
    totals = x.new_zeros(shape if parts == 1 else (parts, *shape))
    total = totals if parts == 1 else totals[0]
    _, first, places = _placed(family, total)
    given = x.data_ptr(), y_bar.data_ptr(), first, places, total.nbytes
    correlation.run_vjp(*given, batch, parts, x, y_bar, totals)
    return total if parts == 1 else totals.sum(0)


def _placed(family: TapsFamily, w: Tensor) -> tuple[Tensor, int, Places]:
    """Return weights, the address of the first tap's matrix, and the layout of all matrices."""
    placed: Any = family.placed(w.stride())
    if placed is None:
        w = w.contiguous()
        placed = family.placed(w.stride())
    first, places = placed
    return w, w.data_ptr() + first * w.element_size(), places


def has_convolution(x: Tensor, grid: TapGrid) -> bool:
    """Tell whether PyTorch's convolution can be used: at most three axes, and few missing taps."""
    return x.ndim - 2 in _CONV and math.prod(grid.size) <= 4 * len(grid.taps)


def _kernel(grid: TapGrid, taps: Tensor) -> Tensor:
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


def _padded(x: Tensor, grid: TapGrid, wrap: bool) -> Tensor:
    """Return x extended from pixel ``low`` to ``high`` beyond the last, zero or periodic."""
    ends = list(zip(grid.low, grid.high, strict=True))
    if wrap:
        for axis, (low, high) in enumerate(ends, 2):
            x = pad(x, axis, -low, high, wrap=True)
        return x
    return F.pad(x, [side for low, high in reversed(ends) for side in (-low, high)])
