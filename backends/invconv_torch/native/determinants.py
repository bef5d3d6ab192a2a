"""Log-determinants and inverses of matrices, for which the host never waits for a device.

What PyTorch's `slogdet` and `inv` would raise for is known on the device only: a zero pivot gives
-inf, a singular matrix NaN.

Called by `primitives`.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch.autograd import Function

from invconv_torch.native.batched import one_by_one

Tensor: TypeAlias = torch.Tensor


def log_of_pivots(factors: Tensor) -> Tensor:
    """Return log|det A|, shape (...), of LU factors (..., C, C)."""
    return factors.diagonal(dim1=-2, dim2=-1).contiguous().abs().log().sum(-1)


def inverse_unchecked(matrices: Tensor) -> Tensor:
    """Return A^-1 of matrices (..., C, C), NaN where one is singular."""
    inverse, info = torch.linalg.inv_ex(matrices, check_errors=False)
    return inverse.masked_fill(info[..., None, None] != 0, math.nan)


class LogAbsDet(Function):  # type: ignore[misc]
    """log|det A| of matrices (..., C, C), by their LU factors: A_bar = bar A^-H."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        """Return log|det A|, shape (...)."""
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrices, check_errors=False)
        ctx.save_for_backward(matrices, factors, pivots)
        return log_of_pivots(factors)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor]:
        """Return the cotangent of the matrices; for a second derivative by one that has one."""
        matrices, factors, pivots = ctx.saved_tensors
        if torch.is_grad_enabled():
            inverse = inverse_unchecked(matrices)
        else:
            unit = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
            inverse = torch.linalg.lu_solve(factors, pivots, unit.expand_as(matrices))
        return (bar[..., None, None] * inverse.mH,)
