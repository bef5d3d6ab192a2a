"""PyTorch: how the library runs the primitives of the core."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from invconv.arrays.stencil import Offset, Stencil
from invconv.kernels.families import (
    LinearFamily,
    ScaleFamily,
    StencilFamily,
    TriangularFamily,
)
from invconv_torch.native import kernels
from invconv_torch.native.autodiff import APPLY, GRAM, MATMUL, SOLVE, run
from invconv_torch.native.correlation import in_host_memory
from invconv_torch.native.solvers import Factor
from invconv_torch.native.whole import LogAbsDet, evaluate, records
from invconv_torch.traced import in_forward_mode, traced

__all__ = [
    "apply",
    "correlate",
    "correlate_kernel_vjp",
    "evaluate",
    "factor",
    "gram",
    "log_abs_det",
    "matmul",
    "triangular_solve",
]

Tensor: TypeAlias = torch.Tensor
_TRIANGLES = {lower: TriangularFamily(lower) for lower in (False, True)}


# See `invconv.kernels.primitives.matmul`.
matmul = functools.partial(run, MATMUL, None)  # of two tensors

# See `invconv.kernels.maps`.
apply = functools.partial(run, APPLY)  # of a family, its weights and x
gram = functools.partial(run, GRAM)  # of a family, x and y


def factor(family: LinearFamily, w: Tensor, shape: tuple[int, ...]) -> Any:
    """See `invconv.kernels.maps.factor`."""
    if isinstance(family, ScaleFamily | TriangularFamily):
        return family.factor(w, shape)
    known = None if traced() else kernels.factor(family, w.detach(), shape, quiet=False)
    return Solver(family, w, known)


def correlate(stencil: Stencil, x: Tensor, *, wrap: bool = False) -> Tensor:
    """See `invconv.kernels.primitives.correlate`."""
    return run(APPLY, StencilFamily(stencil.offsets, wrap), stencil.taps, x)


def correlate_kernel_vjp(
    x: Tensor, y_bar: Tensor, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Tensor:
    """See `invconv.kernels.primitives.correlate_kernel_vjp`."""
    return run(GRAM, StencilFamily(offsets, wrap), x, y_bar)


def triangular_solve(matrix: Tensor, rhs: Tensor, *, lower: bool) -> Tensor:
    """See `invconv.kernels.primitives.triangular_solve`."""
    return run(SOLVE, (_TRIANGLES[lower], None), matrix, rhs)


def log_abs_det(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.log_abs_det`."""
    if (traced() or not in_host_memory(matrices)) and not in_forward_mode():
        return torch.linalg.slogdet(matrices)[1]
    # slogdet takes half as long again; and the derivative that it has in forward mode has none
    # itself: PyTorch takes it for zero
    if records(matrices, []):
        logs: Tensor = LogAbsDet.apply(matrices)
        return logs
    factors = torch.linalg.lu_factor_ex(matrices)[0]
    return factors.diagonal(dim1=-2, dim2=-1).contiguous().abs().log().sum(-1)


@dataclass(frozen=True, eq=False)
class Solver:
    """The map y -> A(w)^-1 y on a grid, differentiable in y and w.

    Attributes
    ----------
    family : LinearFamily
    weights : tensor
        w.
    factor : a factor of `invconv_torch.native.solvers`, or None
        Of A(w), from detached weights; None in traced code, where each solve factors.
    """

    family: LinearFamily
    weights: Tensor
    factor: Factor | None

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "traced"} if self.factor is None else self.factor.plan

    def __call__(self, y: Tensor) -> Tensor:
        """Solve for x, shape (B, C, *shape)."""
        return run(SOLVE, (self.family, self.factor), self.weights, y)
