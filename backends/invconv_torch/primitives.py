"""PyTorch: how the library runs the primitives of the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from invconv.arrays.stencil import Offset, Stencil
from invconv.kernels.families import (
    CausalFamily,
    LinearFamily,
    MatrixFamily,
    SpectralFamily,
    StencilFamily,
    TriangularFamily,
)
from invconv.kernels.wavefront import CausalStencil
from invconv_torch import autodiff, kernels
from invconv_torch.traced import in_forward_mode, traced

Tensor: TypeAlias = torch.Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.matmul`."""
    return autodiff.matmul(a, b)


def correlate(stencil: Stencil, x: Tensor, *, wrap: bool = False) -> Tensor:
    """See `invconv.kernels.primitives.correlate`."""
    return autodiff.apply(StencilFamily(stencil.offsets, wrap), stencil.taps, x)


def correlate_kernel_vjp(
    x: Tensor, y_bar: Tensor, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Tensor:
    """See `invconv.kernels.primitives.correlate_kernel_vjp`."""
    return autodiff.gram(StencilFamily(offsets, wrap), x, y_bar)


def triangular_solve(matrix: Tensor, rhs: Tensor, *, lower: bool) -> Tensor:
    """See `invconv.kernels.primitives.triangular_solve`."""
    return autodiff.solve(TriangularFamily(lower), None, matrix, rhs)


def log_abs_det(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.log_abs_det`."""
    if not in_forward_mode():
        return torch.linalg.slogdet(matrices)[1]
    # the derivative that slogdet has in forward mode has none itself: PyTorch takes it for zero
    factors = torch.linalg.lu_factor_ex(matrices)[0]
    return factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


@dataclass(frozen=True, eq=False)
class Solver:
    """The map y -> A(w)^-1 y on a grid, differentiable in y and w.

    Attributes
    ----------
    family : LinearFamily
    weights : tensor
        w.
    factor : a factor of `invconv_torch.solvers`, or None
        Of A(w), from detached weights; None in traced code, where each solve factors.
    """

    family: LinearFamily
    weights: Tensor
    factor: kernels.Factor | None

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "traced"} if self.factor is None else self.factor.plan

    def __call__(self, y: Tensor) -> Tensor:
        """Solve for x, shape (B, C, *shape)."""
        return autodiff.solve(self.family, self.factor, self.weights, y)


def matrix_solver(matrix: Tensor) -> Solver:
    """See `invconv.operators.pointwise.conv1x1.matrix_solver`."""
    return _solver(MatrixFamily(), matrix, ())


def causal_solver(stencil: CausalStencil, shape: tuple[int, ...]) -> Solver:
    """See `invconv.kernels.wavefront.causal_solver`."""
    return _solver(*CausalFamily.of(stencil), shape)


def spectral_solver(spectrum: Tensor, shape: tuple[int, ...]) -> Solver:
    """See `invconv.kernels.spectrum.spectral_solver`."""
    return _solver(SpectralFamily(shape), spectrum, shape)


def _solver(family: LinearFamily, weights: Tensor, shape: tuple[int, ...]) -> Solver:
    factor = None if traced() else kernels.factor(family, weights.detach(), shape, quiet=False)
    return Solver(family, weights, factor)
