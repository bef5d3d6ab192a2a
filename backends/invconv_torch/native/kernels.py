"""The operations on a family of matrices: plain PyTorch, at full precision, with no derivative.

`invconv_torch.native.autodiff` adds the derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from invconv.kernels.families import MIRROR, LinearFamily
from invconv.kernels.primitives import flat, pixel_rows
from invconv_torch.native.correlation import (
    compiled_vjp,
    convolve,
    convolve_vjp,
    correlate_compiled,
    prefers_kernel,
    prefers_kernel_for_gradient,
)
from invconv_torch.native.layout import laid_out
from invconv_torch.native.solvers import CausalFactor, Factor, MatrixFactor, SpectralFactor
from invconv_torch.precision import full_precision, nothing_reduces

Tensor: TypeAlias = torch.Tensor


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x, by the kind of map that the family lowers to."""
    return _APPLY[family.lowers](family, w, x)


def _correlated(family: Any, w: Tensor, x: Tensor) -> Tensor:
    """Return the correlation; each way sets the precision itself."""
    if family.by_frequencies(x):
        with full_precision(x):
            return laid_out(torch.as_tensor(family.apply(w, x)).contiguous(), x)
    whole, w = family.whole, family.unfolded(w)
    if prefers_kernel(x):
        return correlate_compiled(whole, w, x)
    if whole.wrap != MIRROR:
        return convolve(whole.offsets, whole.wrap, whole.taps(w), x)
    y = convolve(whole.offsets, False, whole.taps(w), whole.mirrored(x))
    return laid_out(whole.cropped(y).contiguous(), x)


def _multiplied(family: Any, w: Tensor, x: Tensor) -> Tensor:
    return laid_out(matmul(None, w, flat(x)).view(x.shape), x)


def _scaled(family: Any, w: Tensor, x: Tensor) -> Tensor:
    return w.view(-1, *[1] * (x.ndim - 2)) * x


def _triangle(family: Any, w: Tensor, x: Tensor) -> Tensor:
    with full_precision(x):
        return torch.matmul(w.tril() if family.lower else w.triu(), x)


_APPLY: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "taps": _correlated,
    "matrix": _multiplied,
    "scale": _scaled,
    "triangle": _triangle,
}


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    return _GRAM[family.lowers](family, x, y)


def _gram_of_taps(family: Any, x: Tensor, y: Tensor) -> Tensor:
    if family.by_frequencies(x):
        with full_precision(x):
            return torch.as_tensor(family.gram(x, y)).contiguous()
    whole, mirrored = family.whole, family.wrap == MIRROR
    # PyTorch would pad both images of a mirrored one
    if prefers_kernel(x) if mirrored else prefers_kernel_for_gradient(x, len(whole.offsets)):
        bar = compiled_vjp(whole, x, y)
    elif mirrored:
        bar = whole.kernel(convolve_vjp(whole.offsets, False, whole.mirrored(x), whole.in_zeros(y)))
    else:
        bar = whole.kernel(convolve_vjp(whole.offsets, whole.wrap, x, y))
    return torch.as_tensor(family.folded(bar))


def _gram_of_matrix(family: Any, x: Tensor, y: Tensor) -> Tensor:
    with full_precision(x):
        return torch.matmul(pixel_rows(y), pixel_rows(x).mT)


def _gram_of_scale(family: Any, x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum((0, *range(2, x.ndim)))


def _gram_of_triangle(family: Any, x: Tensor, y: Tensor) -> Tensor:
    with full_precision(x):
        full = torch.matmul(y, x.mT)
        return full.tril() if family.lower else full.triu()


_GRAM: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "taps": _gram_of_taps,
    "matrix": _gram_of_matrix,
    "scale": _gram_of_scale,
    "triangle": _gram_of_triangle,
}


def factor(family: Any, w: Tensor, shape: tuple[int, ...], quiet: bool) -> Factor | None:
    """Factor A(w) for a grid; ``quiet``, without errors, if it was not tested for singularity."""
    with full_precision(w):
        if family.solved == "causal":
            return CausalFactor.of(family, w, shape)
        if family.solved == "spectral":
            return SpectralFactor.of(family.basis, w, shape, quiet)
        return MatrixFactor.of(w, quiet) if family.solved == "matrix" else None


def solve(factored: tuple[Any, Factor | None], w: Tensor, y: Tensor) -> Tensor:
    """Return A(w)^-1 y for a family, with the factors of A(w) if they are given."""
    family, factors = factored
    if y.numel() == 0:
        return torch.empty_like(y)
    if isinstance(factors, CausalFactor):  # it sets the precision itself
        return laid_out(factors.solve(y), y)
    with full_precision(y):
        if family.solved == "triangle":
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
