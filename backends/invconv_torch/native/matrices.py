"""Log-determinants and inverses of matrices (..., C, C).

The host never waits for a device. PyTorch's `slogdet` and `inv` would, to raise for a singular
matrix; here a zero pivot gives -inf, and a singular matrix NaN.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch.autograd import Function

Tensor: TypeAlias = torch.Tensor


def log_of_pivots(matrices: Tensor) -> Tensor:
    """Return log|det A|, shape (...), by LU factors, without a derivative of its own."""
    factors = torch.linalg.lu_factor_ex(matrices, check_errors=False)[0]
    return factors.diagonal(dim1=-2, dim2=-1).contiguous().abs().log().sum(-1)


def inverse_or_nan(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.inverse_or_nan`; a singular matrix gives NaN."""
    inverse, info = torch.linalg.inv_ex(matrices, check_errors=False)
    return inverse.masked_fill(info[..., None, None] != 0, math.nan)


class LogAbsDet(Function):  # type: ignore[misc]
    """log|det A|: A_bar = bar A^-H."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        """Return log|det A|, shape (...)."""
        ctx.save_for_backward(matrices)
        return log_of_pivots(matrices)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor]:
        """Return the cotangent of the matrices."""
        return (bar[..., None, None] * inverse_or_nan(*ctx.saved_tensors).mH,)
