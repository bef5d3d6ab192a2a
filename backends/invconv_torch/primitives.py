"""PyTorch's native primitives, which `invconv.arrays.registry` looks up here."""

import functools
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from invconv.families.family import Family
from invconv.families.pointwise import TriangleOfRows
from invconv.kernels.frequencies.products import SpectralProduct
from invconv.kernels.primitives import Plan
from invconv_torch.native import kernels
from invconv_torch.native.determinants import LogAbsDet, log_of_pivots
from invconv_torch.native.determinants import inverse_or_nan as inverse_or_nan
from invconv_torch.native.determinants import spectral_log_det as spectral_log_det
from invconv_torch.native.exponential import counted as counted
from invconv_torch.native.exponential import exponential as exponential
from invconv_torch.native.exponential import exponential_gram as exponential_gram
from invconv_torch.native.filters import filtered as filtered
from invconv_torch.native.host import TorchOps
from invconv_torch.native.kernels import APPLY, GRAM, MATMUL, SOLVE, run
from invconv_torch.native.solvers import Factor, SpectralFactor
from invconv_torch.native.solvers import by_frequencies as by_frequencies
from invconv_torch.native.whole import evaluate as evaluate
from invconv_torch.native.whole import records
from invconv_torch.traced import bare, require_onnx_form

ARRAY_OPS = TorchOps
_TRIANGLES = {lower: TriangleOfRows(lower) for lower in (False, True)}


# See `invconv.kernels.primitives.matmul`.
matmul = functools.partial(run, MATMUL, None)  # of two tensors

# See `invconv.kernels.maps`.
apply = functools.partial(run, APPLY)  # of a family, its weights and x
gram = functools.partial(run, GRAM)  # of a family, x and y


def factor(family: Family, w: Tensor, shape: tuple[int, ...]) -> Any:
    """See `invconv.kernels.maps.factor`."""
    if family.solved in ("causal", "spectral", "matrix"):
        require_onnx_form()
    if family.solved not in ("causal", "spectral"):
        return family.factor(w, shape)
    known = kernels.factor(family, w.detach(), shape, quiet=False) if bare(w) else None
    return Solver(family, w, known)


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
    return log_of_pivots(matrices)


@dataclass(frozen=True, eq=False)
class Solver:
    """The map y -> A(w)^-1 y on a grid, differentiable in y and w."""

    family: Family
    weights: Tensor
    factor: Factor | None  # from detached weights; None in traced code, where each solve factors

    @property
    def plan(self) -> Plan:
        """How the solve runs."""
        return Plan("traced") if self.factor is None else self.factor.plan

    def as_numpy(self) -> SpectralProduct | None:
        """Return the spectral product on NumPy arrays, or None if the solve is another."""
        product = self.factor.product if isinstance(self.factor, SpectralFactor) else None
        return None if product is None else product.as_numpy()

    def __call__(self, y: Tensor) -> Tensor:
        """Solve for x, shape (B, C, *shape)."""
        return run(SOLVE, (self.family, self.factor), self.weights, y)
