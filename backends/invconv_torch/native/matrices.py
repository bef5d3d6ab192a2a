"""Log-determinants and inverses of matrices, and products of reflections.

The host never waits for a device. PyTorch's `slogdet` and `inv` would, to raise for a singular
matrix; here a zero pivot gives -inf, and a singular matrix NaN.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch.autograd import Function

from invconv.kernels import reflections
from invconv.kernels.cpu.householder import reflect, reflect_vjp
from invconv.kernels.cpu.machine import reason
from invconv.kernels.cpu.spectral.factors import factor, prefers_lanes
from invconv_torch.native.batched import one_by_one
from invconv_torch.native.host import in_host_memory
from invconv_torch.traced import unwatched

Tensor: TypeAlias = torch.Tensor

_MOST = 96  # channels: products of matrices are quicker with more


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
    channels, parts = matrices.shape[-1], 2 if matrices.is_complex() else 1
    itemsize, count = matrices.element_size() // parts, matrices.shape[:-1].numel() // channels
    compiled = unwatched() and in_host_memory(matrices) and prefers_lanes(count, channels, itemsize)
    if not compiled:
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrices, check_errors=False)
        return factors, pivots
    factors = _plain(matrices.resolve_conj()).clone()
    rows = torch.empty(matrices.shape[:-1], dtype=matrices.real.dtype)
    factor(factors.data_ptr(), rows.data_ptr(), (count, channels), parts, itemsize)
    return factors, (rows + 1).to(torch.int32)


def inverse_saved(matrices: Tensor, memo: Any) -> Tensor:
    """See `invconv.kernels.primitives.inverse_saved`; differentiable if gradients are enabled."""
    if memo is None or torch.is_grad_enabled():
        return inverse_unchecked(matrices)
    unit = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return torch.linalg.lu_solve(*memo, unit.expand_as(matrices))


def reflected(reflectors: Tensor, matrix: Tensor) -> tuple[Tensor, Any]:
    """See `invconv.kernels.reflections.reflected`; the compiled version saves only the product."""
    itemsize = matrix.element_size()
    if (
        len(matrix) > _MOST
        or not (unwatched() and in_host_memory(reflectors) and in_host_memory(matrix))
        or reason(itemsize) is not None
    ):
        by_blocks: tuple[Tensor, Any] = reflections.reflected.agnostic(reflectors, matrix)
        return by_blocks
    v, u = _plain(reflectors), _plain(matrix)
    product = torch.empty_like(u)
    address = v.data_ptr(), u.data_ptr(), product.data_ptr()
    reflect(address, (len(v), *u.shape), itemsize)
    return product, product


def reflected_vjp(reflectors: Tensor, memo: Any, bar: Tensor) -> tuple[Tensor, Tensor]:
    """See `invconv.kernels.reflections.reflected_vjp`."""
    if not isinstance(memo, torch.Tensor):
        bars: tuple[Tensor, Tensor] = reflections.reflected_vjp.agnostic(reflectors, memo, bar)
        return bars
    v, bar = _plain(reflectors), _plain(bar)
    v_bar, matrix_bar = torch.empty_like(v), torch.empty_like(bar)
    given = [t.data_ptr() for t in (v, memo, bar, v_bar, matrix_bar)]
    reflect_vjp((*given,), (len(v), *bar.shape), bar.element_size())
    return v_bar, matrix_bar


def _plain(x: Tensor) -> Tensor:
    """Return a contiguous tensor with the same numbers."""
    return x.resolve_neg().contiguous()
