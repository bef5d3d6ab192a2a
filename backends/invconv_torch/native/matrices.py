"""Log-determinants and inverses of matrices.

The host never waits for a device. PyTorch's `slogdet` and `inv` would, to raise for a singular
matrix; here a zero pivot gives -inf, and a singular matrix NaN.
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
    """Return A^-1 of matrices (..., C, C), NaN for a singular one."""
    inverse, info = torch.linalg.inv_ex(matrices, check_errors=False)
    return inverse.masked_fill(info[..., None, None] != 0, math.nan)


class LogAbsDet(Function):  # type: ignore[misc]
    """log|det A| of matrices (..., C, C), by their LU factors: A_bar = bar A^-H."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        """Return log|det A|, shape (...)."""
        logs, factors = log_abs_det_saving(matrices)
        ctx.save_for_backward(matrices, *factors)
        return logs

    @staticmethod
    @one_by_one
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor]:
        """Return the cotangent of the matrices."""
        matrices, *factors = ctx.saved_tensors
        inverse = inverse_saved(matrices, factors)
        return (bar[..., None, None] * inverse.mH,)


def log_abs_det_saving(matrices: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """See `invconv.kernels.primitives.log_abs_det_saving`; it saves LU factors and pivots."""
    factors, pivots = factored(matrices)
    return log_of_pivots(factors), (factors, pivots)


def factored(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return LU factors (..., C, C), and pivots: LAPACK's numbers of the swapped rows."""
    factors, pivots, _ = torch.linalg.lu_factor_ex(matrices, check_errors=False)
    return factors, pivots


def inverse_saved(matrices: Tensor, memo: Any) -> Tensor:
    """See `invconv.kernels.primitives.inverse_saved`; differentiable if gradients are enabled."""
    if memo is None or torch.is_grad_enabled():
        return inverse_unchecked(matrices)
    unit = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return torch.linalg.lu_solve(*memo, unit.expand_as(matrices))
