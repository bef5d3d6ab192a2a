"""PyTorch's native primitives, which `invconv.arrays.registry` looks up here."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from invconv.arrays.namespaces import readable
from invconv.arrays.stencil import Offset, Stencil
from invconv.kernels import primitives
from invconv.kernels.families import (
    LinearFamily,
    ScaleFamily,
    StencilFamily,
    TriangularFamily,
)
from invconv.kernels.frequencies.products import SpectralProduct
from invconv_torch.native import kernels
from invconv_torch.native.autodiff import APPLY, GRAM, MATMUL, SOLVE, run
from invconv_torch.native.exponential import exponential, exponential_gram, exponential_vjp
from invconv_torch.native.host import TorchOps, in_host_memory
from invconv_torch.native.matrices import (
    LogAbsDet,
    factored,
    inverse_saved,
    inverse_unchecked,
    log_abs_det_saving,
    log_of_pivots,
    reflected,
    reflected_vjp,
)
from invconv_torch.native.solvers import Factor, SpectralFactor, by_frequencies
from invconv_torch.native.spectral import spectral_log_det
from invconv_torch.native.terms import counted, without_mean
from invconv_torch.native.whole import evaluate, records
from invconv_torch.traced import require_onnx_form, traced, unwatched

__all__ = [
    "ARRAY_OPS",
    "add_pivots",
    "apply",
    "by_frequencies",
    "complex_of",
    "correlate",
    "correlate_kernel_vjp",
    "counted",
    "evaluate",
    "exponential",
    "exponential_gram",
    "exponential_vjp",
    "factor",
    "gram",
    "inverse_or_nan",
    "inverse_saved",
    "log_abs_det",
    "log_abs_det_saving",
    "log_abs_product",
    "matmul",
    "pivots",
    "reflected",
    "reflected_vjp",
    "shifted",
    "spectral_log_det",
    "triangular_solve",
    "without_mean",
]

Tensor: TypeAlias = torch.Tensor
ARRAY_OPS = TorchOps
_LEAST = 1e-280  # the least product with all digits; 1 / _LEAST is the largest
_TRIANGLES = {lower: TriangularFamily(lower) for lower in (False, True)}


# See `invconv.kernels.primitives.matmul`.
matmul = functools.partial(run, MATMUL, None)  # of two tensors

# See `invconv.kernels.frequencies.fourier.complex_of`.
complex_of = torch.complex

# See `invconv.kernels.maps`.
apply = functools.partial(run, APPLY)  # of a family, its weights and x
gram = functools.partial(run, GRAM)  # of a family, x and y


def factor(family: LinearFamily, w: Tensor, shape: tuple[int, ...]) -> Any:
    """See `invconv.kernels.maps.factor`."""
    if isinstance(family, ScaleFamily | TriangularFamily):
        return family.factor(w, shape)
    require_onnx_form()
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
    require_onnx_form()
    return run(SOLVE, (_TRIANGLES[lower], None), matrix, rhs)


def log_abs_det(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.log_abs_det`.

    LU factors are used instead of slogdet, which takes half as long again on a CPU and may make the
    host wait for a device; and PyTorch takes the derivative of its forward-mode derivative for
    zero.
    """
    require_onnx_form()
    if records(matrices, []):
        logs: Tensor = LogAbsDet.apply(matrices)
        return logs
    return log_of_pivots(factored(matrices)[0])


def inverse_or_nan(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.inverse_or_nan`."""
    return torch.linalg.inv(matrices) if readable(matrices) else inverse_unchecked(matrices)


def add_pivots(kernel: Tensor, centre: Offset, v: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.add_pivots`."""
    if not unwatched():
        return torch.as_tensor(primitives.add_pivots.agnostic(kernel, centre, v))
    primitives.pivots(kernel, centre).add_(v)
    return kernel


def shifted(y: Tensor, v: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.shifted`."""
    if not unwatched():
        return torch.as_tensor(primitives.shifted.agnostic(y, v))
    return y.add_(v.view(-1, *[1] * (y.ndim - 2)))


def log_abs_product(pixels: int, *vectors: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.log_abs_product`."""
    if unwatched() and all(map(in_host_memory, vectors)):
        return _of_few_numbers(pixels, vectors)
    return torch.as_tensor(primitives.log_abs_product.agnostic(pixels, *vectors))


def pivots(kernel: Tensor, centre: Offset) -> Tensor:
    """See `invconv.kernels.primitives.pivots`; one view is quicker than several in a row."""
    if not (unwatched() and in_host_memory(kernel)):
        return torch.as_tensor(primitives.pivots.agnostic(kernel, centre))
    row, column, *strides = kernel.stride()
    place = kernel.storage_offset() + sum(map(operator.mul, strides, centre))
    return kernel.as_strided(kernel.shape[:1], (row + column,), place)


def _of_few_numbers(pixels: int, vectors: Sequence[Tensor]) -> Tensor:
    """Return pixels times the sum of log|v|, by a product of Python's floats."""
    product = 1.0
    for vector in vectors:
        product = math.prod(vector.tolist(), start=product)
    if _LEAST < abs(product) < 1 / _LEAST:  # False for NaN, too
        return torch.scalar_tensor(pixels * math.log(abs(product)), dtype=vectors[0].dtype)
    return torch.as_tensor(primitives.log_abs_product.agnostic(pixels, *vectors))


@dataclass(frozen=True, eq=False)
class Solver:
    """The map y -> A(w)^-1 y on a grid, differentiable in y and w.

    Attributes
    ----------
    family : LinearFamily
    weights : tensor
        w.
    factor : a factor of `invconv_torch.native.solvers`, or None
        The factors of A(w), from detached weights; None in traced code: there each solve factors.
    """

    family: LinearFamily
    weights: Tensor
    factor: Factor | None

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "traced"} if self.factor is None else self.factor.plan

    def as_numpy(self) -> SpectralProduct | None:
        """Return the spectral product on NumPy arrays, or None if the solve is another."""
        product = self.factor.product if isinstance(self.factor, SpectralFactor) else None
        return None if product is None else product.as_numpy()

    def __call__(self, y: Tensor) -> Tensor:
        """Solve for x, shape (B, C, *shape)."""
        return run(SOLVE, (self.family, self.factor), self.weights, y)
