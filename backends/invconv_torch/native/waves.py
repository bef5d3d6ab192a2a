"""PyTorch's functions for the plain wavefront of `invconv.kernels.plain.pitched`.

They are for devices: on the CPU a compiled kernel runs. Buffers come from torch's pool, or in a
captured graph from the graph's own pool, since streams may not share one. Nothing here waits for a
device, or reads a value.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv.kernels.plain.pitched import StridedOps
from invconv_torch.precision import full_precision

Tensor: TypeAlias = torch.Tensor


def _as_strided(x: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], start: int) -> Tensor:
    return x.as_strided(shape, strides, start)


def _matmul(a: Tensor, b: Tensor, out: Tensor) -> None:
    torch.mm(a, b, out=out)


def _substitute(diagonal: Tensor, rows: Tensor, lower: bool) -> Tensor:
    return torch.linalg.solve_triangular(diagonal.mT, rows, upper=lower, left=False)


TORCH = StridedOps(
    _as_strided, _matmul, full_precision, torch.Tensor.copy_, torch.Tensor.copy_, _substitute
)
