"""The kernels: plain PyTorch, at full precision, with no derivative (`invconv_torch.autodiff`)."""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv.kernels.families import (
    CausalFamily,
    LinearFamily,
    MatrixFamily,
    SpectralFamily,
    StencilFamily,
    TriangularFamily,
)
from invconv_torch import correlation
from invconv_torch.precision import full_precision
from invconv_torch.solvers import CausalFactor, MatrixFactor, SpectralFactor

Tensor: TypeAlias = torch.Tensor
Factor: TypeAlias = CausalFactor | MatrixFactor | SpectralFactor


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x."""
    assert isinstance(family, StencilFamily)
    with full_precision(x):
        return correlation.correlate(family.offsets, family.wrap, w, x)


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    assert isinstance(family, StencilFamily)
    with full_precision(x):
        return correlation.correlate_kernel_vjp(family.offsets, family.wrap, x, y)


def factor(family: LinearFamily, w: Tensor, shape: tuple[int, ...], quiet: bool) -> Factor | None:
    """Factor A(w) for a grid; ``quiet`` where nobody has looked whether it is singular."""
    with full_precision(w):
        if isinstance(family, CausalFamily):
            return CausalFactor.of(family, w, shape)
        if isinstance(family, SpectralFamily):
            return SpectralFactor.of(family, w, quiet)
        if isinstance(family, MatrixFamily):
            return MatrixFactor.of(w)
        return None


def solve(family: LinearFamily, factored: Factor | None, w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y, with the factors if they are there."""
    if y.numel() == 0:
        return torch.empty_like(y)
    if isinstance(factored, CausalFactor):  # which sees to its precision
        return factored.solve(y)
    with full_precision(y):
        if isinstance(family, TriangularFamily):
            return torch.linalg.solve_triangular(w, y, upper=not family.lower)
        if factored is None:
            factored = factor(family, w, tuple(y.shape[2:]), quiet=True)
        assert factored is not None
        return factored.solve(y)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    with full_precision(a):
        return torch.matmul(a, b)
