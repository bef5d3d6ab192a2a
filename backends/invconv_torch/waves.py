"""The waves of `invconv.pitched` and `invconv.relay` with `torch.mm` into strided views.

For devices: on the CPU, NumPy's run on a tensor's memory. Buffers come from torch's pool, in a
captured graph from the graph's own, since streams may not share one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from invconv.pitched import Layout
from invconv.relay import Relay

Tensor: TypeAlias = torch.Tensor


def _tiled(plan: Layout | Relay, x: Tensor) -> Tensor:
    """View images (B, C, H, W) as (B, H / h, h, W / w, w, C)."""
    batch, rows, high, columns, wide, channels = plan.shape
    tiled = x.reshape(batch, channels, rows, high, columns, wide)
    return tiled.permute(0, 2, 3, 4, 5, 1)


def _images(plan: Layout | Relay, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a zeroed buffer, the images y as they are copied in, and room for x."""
    buffer = torch.zeros(plan.length, dtype=y.dtype, device=y.device)
    x = torch.empty_like(y, memory_format=torch.contiguous_format)
    return buffer, _tiled(plan, y), x


def pitched(
    plan: Layout, matrices: list[Tensor], y: Tensor, substitute: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """Return x of the images y; ``substitute`` solves with D in rows where the weights do not."""
    buffer, source, x = _images(plan, y)
    images = buffer.as_strided(plan.shape, plan.strides, plan.start)
    images.copy_(source)
    scratch = buffer.new_empty((plan.longest, plan.size))
    first, *others = matrices
    row = (plan.strides[0], 1)
    for place, count in plan.steps:
        windows = [buffer.as_strided((count, k), row, place + shift) for shift, k in plan.windows]
        found = scratch[:count]
        torch.mm(windows[0], first, out=found)
        for window, matrix in zip(windows[1:], others, strict=True):
            found.addmm_(window, matrix)
        tiles = buffer.as_strided((count, plan.size), row, place)
        tiles.copy_(found if substitute is None else substitute(found))
    _tiled(plan, x).copy_(images)
    return x


def relayed(plan: Relay, matrix: Tensor, y: Tensor) -> Tensor:
    """Return x of the image y."""
    buffer, source, x = _images(plan, y)
    buffer.as_strided(plan.shape, plan.strides, plan.entry).copy_(source)
    row = (plan.record, 1)
    for reads, finds, count in plan.steps:
        found = buffer.as_strided((count, plan.finds), row, finds)
        torch.mm(buffer.as_strided((count, plan.reads), row, reads), matrix, out=found)
    _tiled(plan, x).copy_(buffer.as_strided(plan.shape, plan.strides, plan.exit))
    return x
