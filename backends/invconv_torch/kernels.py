"""Every operation on a family of matrices: plain PyTorch, at full precision, with no derivative.

`invconv_torch.autodiff` adds the derivatives.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv.kernels.families import (
    CausalFamily,
    CircularFamily,
    LinearFamily,
    MatrixFamily,
    ScaleFamily,
    StencilFamily,
    TriangularFamily,
)
from invconv_torch import correlation
from invconv_torch.correlation import convolve, convolve_vjp, prefers_kernel
from invconv_torch.precision import full_precision
from invconv_torch.solvers import CausalFactor, Factor, MatrixFactor, SpectralFactor

Tensor: TypeAlias = torch.Tensor
_CORRELATIONS = (CausalFamily, CircularFamily, StencilFamily)


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x."""
    if isinstance(family, _CORRELATIONS):  # which see to their precision
        correlate = correlation.correlate_compiled if prefers_kernel(x) else convolve
        return correlate(family.offsets, family.wrap, _taps(family, w), x)
    if isinstance(family, ScaleFamily):
        return w.view(-1, *[1] * (x.ndim - 2)) * x
    with full_precision(x):
        if isinstance(family, MatrixFamily):
            return torch.matmul(w, x.flatten(2)).view(x.shape)
        assert isinstance(family, TriangularFamily)
        return torch.matmul(w.tril() if family.lower else w.triu(), x)


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    if isinstance(family, _CORRELATIONS):
        correlate_vjp = correlation.compiled_vjp if prefers_kernel(x) else convolve_vjp
        return _kernel(family, correlate_vjp(family.offsets, family.wrap, x, y))
    if isinstance(family, ScaleFamily):
        return (x * y).sum((0, *range(2, x.ndim)))
    with full_precision(x):
        if isinstance(family, MatrixFamily):
            return torch.einsum("bcn,bdn->cd", y.flatten(2), x.flatten(2))
        assert isinstance(family, TriangularFamily)
        full = torch.matmul(y, x.mT)
        return full.tril() if family.lower else full.triu()


def _taps(family: LinearFamily, w: Tensor) -> Tensor:
    """Return the taps (T, C, C) of a correlation, without those that are masked."""
    if isinstance(family, StencilFamily):
        return w
    taps = w.flatten(2).permute(2, 0, 1)
    if isinstance(family, CausalFamily):
        taps = taps[family.first :].clone(memory_format=torch.contiguous_format)
        (taps[0].tril_ if family.lower else taps[0].triu_)()
    return taps


def _kernel(family: LinearFamily, taps: Tensor) -> Tensor:
    """Undo `_taps`, which it may overwrite."""
    if isinstance(family, StencilFamily):
        return taps
    if isinstance(family, CausalFamily):
        (taps[0].tril_ if family.lower else taps[0].triu_)()
        if family.first:
            blank = taps.new_zeros((family.first, *taps.shape[1:]))
            taps = torch.cat([blank, taps])
    assert isinstance(family, CausalFamily | CircularFamily)
    return taps.permute(1, 2, 0).reshape(*taps.shape[1:], *family.kernel_size)


def factor(family: LinearFamily, w: Tensor, shape: tuple[int, ...], quiet: bool) -> Factor | None:
    """Factor A(w) for a grid; ``quiet`` where nobody has looked whether it is singular."""
    with full_precision(w):
        if isinstance(family, CausalFamily):
            return CausalFactor.of(family, w, shape)
        if isinstance(family, CircularFamily):
            return SpectralFactor.of(family, w, shape, quiet)
        if isinstance(family, MatrixFamily):
            return MatrixFactor.of(w, quiet)
        return None


def solve(factored: tuple[LinearFamily, Factor | None], w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y for a family, with the factors of A(w) if they are there."""
    family, factors = factored
    if y.numel() == 0:
        return torch.empty_like(y)
    if isinstance(factors, CausalFactor):  # which sees to its precision
        return factors.solve(y)
    with full_precision(y):
        if isinstance(family, TriangularFamily):
            return torch.linalg.solve_triangular(w, y, upper=not family.lower)
        if factors is None:
            factors = factor(family, w, tuple(y.shape[2:]), quiet=True)
        assert factors is not None
        return factors.solve(y)


def matmul(_: None, a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    with full_precision(a):
        return torch.matmul(a, b)
