"""The operations on a family of matrices: plain PyTorch, at full precision, with no derivative.

`invconv_torch.native.autodiff` adds the derivatives.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from invconv.kernels.families import MIRROR, LinearFamily
from invconv_torch.native.correlation import (
    compiled_vjp,
    convolve,
    convolve_vjp,
    correlate_compiled,
    prefers_kernel,
)
from invconv_torch.native.host import laid_out
from invconv_torch.native.solvers import CausalFactor, Factor, SpectralFactor
from invconv_torch.precision import full_precision, nothing_reduces

Tensor: TypeAlias = torch.Tensor


def apply(family: LinearFamily, w: Tensor, x: Tensor) -> Tensor:
    """Return A(w) x; correlations run by the compiled kernel, or by PyTorch's convolution."""
    if family.lowers != "taps":
        with full_precision(x):
            return laid_out(torch.as_tensor(family.apply(w, x)), x)
    taps: Any = family
    if taps.by_frequencies(x):
        with full_precision(x):
            return laid_out(torch.as_tensor(family.apply(w, x)).contiguous(), x)
    whole, w = taps.whole, taps.unfolded(w)
    if prefers_kernel(x):
        return correlate_compiled(whole, w, x)
    if whole.wrap != MIRROR:
        return convolve(whole.offsets, whole.wrap, whole.taps(w), x)
    y = convolve(whole.offsets, False, whole.taps(w), whole.mirrored(x))
    return laid_out(whole.cropped(y).contiguous(), x)


def gram(family: LinearFamily, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of <y, A(w) x> with respect to w."""
    taps: Any = family
    if family.lowers != "taps" or taps.by_frequencies(x):
        with full_precision(x):
            return torch.as_tensor(family.gram(x, y)).contiguous()
    whole = taps.whole
    if prefers_kernel(x):
        bar = compiled_vjp(whole, x, y)
    elif taps.wrap == MIRROR:
        bar = whole.kernel(convolve_vjp(whole.offsets, False, whole.mirrored(x), whole.in_zeros(y)))
    else:
        bar = whole.kernel(convolve_vjp(whole.offsets, whole.wrap, x, y))
    return torch.as_tensor(taps.folded(bar))


def factor(family: Any, w: Tensor, shape: tuple[int, ...], quiet: bool) -> Factor | None:
    """Factor A(w) for a grid; ``quiet``, without errors, if it was not tested for singularity."""
    with full_precision(w):
        if family.solved == "causal":
            return CausalFactor.of(family, w, shape)
        if family.solved == "spectral":
            return SpectralFactor.of(family.basis, w, shape, quiet)
        return None


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
