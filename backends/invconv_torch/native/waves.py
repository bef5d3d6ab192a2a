"""What the plain wavefront of `invconv.kernels.plain.pitched` needs of PyTorch.

For devices: on the CPU other ways run on a tensor's memory. Buffers come from torch's pool, in a
captured graph from the graph's own, since streams may not share one. Nothing here waits for a
device, or looks at a value.
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
