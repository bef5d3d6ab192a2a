"""Every operation on a family of matrices: plain PyTorch, at full precision, with no derivative.

`invconv_torch.autodiff` adds the derivatives.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from invconv.arrays.stencil import kernel_of, taps_of
from invconv.kernels.families import (
    CausalFamily,
    CircularFamily,
    LinearFamily,
    MatrixFamily,
    StencilFamily,
    TriangularFamily,
)
from invconv_torch import correlation
from invconv_torch.precision import full_precision
from invconv_torch.solvers import CausalFactor, Factor, MatrixFactor, SpectralFactor

Tensor: TypeAlias = torch.Tensor
_CORRELATIONS = (CausalFamily, CircularFamily, StencilFamily)


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x."""
    with full_precision(x):
        if isinstance(family, _CORRELATIONS):
            return correlation.correlate(family.offsets, wraps(family), _taps(family, w), x)
        if isinstance(family, MatrixFamily):
            return torch.matmul(w, x.flatten(2)).view(x.shape)
        assert isinstance(family, TriangularFamily)
        return torch.matmul(w.tril() if family.lower else w.triu(), x)


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    with full_precision(x):
        if isinstance(family, _CORRELATIONS):
            bars = correlation.correlate_kernel_vjp(family.offsets, wraps(family), x, y)
            return _kernel(family, bars)
        if isinstance(family, MatrixFamily):
            return torch.einsum("bcn,bdn->cd", y.flatten(2), x.flatten(2))
        assert isinstance(family, TriangularFamily)
        full = torch.matmul(y, x.mT)
        return full.tril() if family.lower else full.triu()


def wraps(family: LinearFamily) -> bool:
    """Tell whether a correlation is periodic."""
    return isinstance(family, CircularFamily) or (isinstance(family, StencilFamily) and family.wrap)


def _taps(family: LinearFamily, w: Tensor) -> Tensor:
    """Return the taps (T, C, C) of a correlation, without those that are masked."""
    if isinstance(family, StencilFamily):
        return w
    if isinstance(family, CircularFamily):
        return taps_of(w)
    assert isinstance(family, CausalFamily)
    taps: Tensor = taps_of(w, family.first).clone(memory_format=torch.contiguous_format)
    _mask(family, taps[0])
    return taps


def _kernel(family: LinearFamily, taps: Tensor) -> Tensor:
    """Undo `_taps`, which it may overwrite."""
    if isinstance(family, StencilFamily):
        return taps
    if isinstance(family, CausalFamily):
        _mask(family, taps[0])
    assert isinstance(family, CausalFamily | CircularFamily)
    kernel: Tensor = kernel_of(taps, family.kernel_size)
    return kernel


def _mask(family: CausalFamily, matrix: Tensor) -> None:
    if family.lower:
        matrix.tril_()
    else:
        matrix.triu_()


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
