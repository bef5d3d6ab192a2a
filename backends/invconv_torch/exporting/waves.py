"""An autoregressive solve as a scan over its wavefronts: a graph of one size for every grid.

The index arrays (`invconv.kernels.lanes`) are NumPy's, or made by torch in the graph, since
the decomposition of an operator cannot hold constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F

from invconv.kernels.lanes import Lanes
from invconv.kernels.wavefront import CausalStencil
from invconv_torch.private import scan_op

Tensor: TypeAlias = torch.Tensor


def causal_solve(
    c: CausalStencil, lanes: Lanes, y: Tensor, solve: Callable[..., Tensor], *matrices: Tensor
) -> Tensor:
    """Return x with ``c.stencil()`` x = y, shape (B, C, *spatial).

    The stencil `within` the grid, and the lanes, are of tensors; ``solve`` takes r (B, C, M) and
    the matrices to D^-1 r.
    """
    channels, count, places = y.shape[1], len(c.reach), lanes.gather.shape
    if not count:
        return solve(y.flatten(2), *matrices).unflatten(2, y.shape[2:])

    def step(
        window: Tensor, row: Tensor, inside: Tensor, reads: Tensor, weights: Tensor, *more: Tensor
    ) -> list[Tensor]:
        seen = F.pad(window, (0, 1)).index_select(2, reads)  # (B, C, T M)
        seen = seen.unflatten(2, (count, places[1])).flatten(1, 2)
        x = solve(row - torch.matmul(weights, seen), *more)
        x = torch.where(inside, x, torch.zeros_like(x))
        later = torch.cat([window[:, :, places[1] :], x], dim=2)
        # cloned, or a single pixel would keep the strides of the solve's result
        return [later.clone(memory_format=torch.contiguous_format), x.clone()]

    rows = F.pad(y.flatten(2), (0, 1)).index_select(2, lanes.gather.reshape(-1))
    rows = rows.unflatten(2, places).permute(2, 0, 1, 3)  # (L, B, C, M)
    window = y.new_zeros((y.shape[0], channels, lanes.back * places[1]))
    weights = c.taps.permute(1, 2, 0).reshape(channels, channels * count)
    held = lanes.reads.reshape(-1), weights, *matrices
    levels = scan_op(step, [window], [rows, lanes.inside], held)[1]
    x = levels.permute(1, 2, 0, 3).flatten(2).index_select(2, lanes.places)
    return x.unflatten(2, y.shape[2:])
