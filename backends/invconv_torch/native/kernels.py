"""The operations on a family of matrices: plain PyTorch, at full precision, with no derivative.

`invconv_torch.native.autodiff` adds the derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from invconv.arrays.stencil import kernel_of, taps_of
from invconv.kernels import maps
from invconv.kernels.convolutions import CausalFamily, CircularFamily
from invconv.kernels.families import (
    LinearFamily,
    MatrixFamily,
    ScaleFamily,
    StencilFamily,
    TriangularFamily,
)
from invconv.kernels.primitives import flat, pixel_rows
from invconv.kernels.symmetric import SymmetricFamily, folded, unfolded
from invconv_torch.native.correlation import (
    Correlation,
    compiled_vjp,
    convolve,
    convolve_vjp,
    correlate_compiled,
    horner_compiled,
    prefers_kernel,
    prefers_kernel_for_gradient,
)
from invconv_torch.native.layout import laid_out
from invconv_torch.native.solvers import CausalFactor, Factor, MatrixFactor, SpectralFactor
from invconv_torch.precision import full_precision, nothing_reduces

Tensor: TypeAlias = torch.Tensor
_CORRELATIONS = (CausalFamily, CircularFamily, StencilFamily)


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x."""
    if isinstance(family, _CORRELATIONS):  # these set the precision themselves
        if isinstance(family, CircularFamily) and family.by_frequencies(x):
            with full_precision(x):
                return laid_out(torch.as_tensor(family.apply(w, x)).contiguous(), x)
        if prefers_kernel(x):
            return correlate_compiled(family, w, x)
        return convolve(family.offsets, family.wrap, _taps(family, w), x)
    if isinstance(family, SymmetricFamily):
        whole, w = family.whole, unfolded(w)
        if prefers_kernel(x):
            return correlate_compiled(whole, w, x)
        y = convolve(whole.offsets, False, torch.as_tensor(taps_of(w)), whole.mirrored(x))
        return laid_out(whole.cropped(y).contiguous(), x)
    if isinstance(family, ScaleFamily):
        return w.view(-1, *[1] * (x.ndim - 2)) * x
    if isinstance(family, MatrixFamily):
        return laid_out(matmul(None, w, flat(x)).view(x.shape), x)
    with full_precision(x):
        assert isinstance(family, TriangularFamily)
        return torch.matmul(w.tril() if family.lower else w.triu(), x)


def horner(family: LinearFamily, ws: Sequence[Tensor], x: Tensor, keep: bool) -> list[Tensor]:
    """See `invconv.kernels.maps.horner`."""
    if isinstance(family, StencilFamily) and prefers_kernel(x):
        return horner_compiled(family, ws, x, keep)
    return maps.recursion(lambda w, z, _: apply(family, w, z).add_(x), ws, x, keep)


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    if isinstance(family, _CORRELATIONS):
        if isinstance(family, CircularFamily) and family.by_frequencies(x):
            with full_precision(x):
                return torch.as_tensor(family.gram(x, y)).contiguous()
        if prefers_kernel_for_gradient(x, len(family.offsets)):
            return compiled_vjp(family, x, y)
        return _kernel(family, convolve_vjp(family.offsets, family.wrap, x, y))
    if isinstance(family, SymmetricFamily):
        whole = family.whole
        if prefers_kernel(x):
            return torch.as_tensor(folded(compiled_vjp(whole, x, y)))
        taps_bar = convolve_vjp(whole.offsets, False, whole.mirrored(x), whole.in_zeros(y))
        return torch.as_tensor(folded(kernel_of(taps_bar, whole.kernel_size)))
    if isinstance(family, ScaleFamily):
        return (x * y).sum((0, *range(2, x.ndim)))
    with full_precision(x):
        if isinstance(family, MatrixFamily):
            return torch.matmul(pixel_rows(y), pixel_rows(x).mT)
        assert isinstance(family, TriangularFamily)
        full = torch.matmul(y, x.mT)
        return full.tril() if family.lower else full.triu()


def _taps(family: Correlation, w: Tensor) -> Tensor:
    """Return the taps (T, C, C) of a correlation, without masked taps."""
    if isinstance(family, StencilFamily):
        return w
    if isinstance(family, CausalFamily):
        return _masked(family, taps_of(w, family.first))
    return torch.as_tensor(taps_of(w))


def _kernel(family: Correlation, taps: Tensor) -> Tensor:
    """Return the kernel (C, C, *k) with these taps; masked entries are zero."""
    if isinstance(family, StencilFamily):
        return taps
    taps = _masked(family, taps) if isinstance(family, CausalFamily) else taps
    return torch.as_tensor(kernel_of(taps, family.kernel_size))


def _masked(family: CausalFamily, taps: Tensor) -> Tensor:
    here = taps[:1].tril() if family.lower else taps[:1].triu()
    return torch.cat([here, taps[1:]])  # not in place, for programs of torch.export


def factor(family: LinearFamily, w: Tensor, shape: tuple[int, ...], quiet: bool) -> Factor | None:
    """Factor A(w) for a grid; ``quiet``, without errors, if it was not tested for singularity."""
    with full_precision(w):
        if isinstance(family, CausalFamily):
            return CausalFactor.of(family, w, shape)
        if isinstance(family, CircularFamily | SymmetricFamily):
            return SpectralFactor.of(family, w, shape, quiet)
        if isinstance(family, MatrixFamily):
            return MatrixFactor.of(w, quiet)
        return None


def solve(factored: tuple[LinearFamily, Factor | None], w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y for a family, with the factors of A(w) if they are given."""
    family, factors = factored
    if y.numel() == 0:
        return torch.empty_like(y)
    if isinstance(factors, CausalFactor):  # it sets the precision itself
        return laid_out(factors.solve(y), y)
    with full_precision(y):
        if isinstance(family, TriangularFamily):
            return torch.linalg.solve_triangular(w, y, upper=not family.lower)
        if factors is None:
            factors = factor(family, w, tuple(y.shape[2:]), quiet=True)
        assert factors is not None
        return laid_out(factors.solve(y), y)


def matmul(_: None, a: Tensor, b: Tensor) -> Tensor:
    """Return A B."""
    if a.device.type == "cpu" and nothing_reduces("cpu"):
        return torch.matmul(a, b)
    with full_precision(a):
        return torch.matmul(a, b)
