"""PyTorch's native primitives, which `invconv.arrays.registry` looks up here."""

import functools
from typing import Any

import torch
from torch import Tensor

from invconv.families.family import Family
from invconv.families.pointwise import TriangleOfRows
from invconv_torch.native import kernels
from invconv_torch.native.determinants import inverse_or_nan as inverse_or_nan
from invconv_torch.native.determinants import log_abs_det as log_abs_det
from invconv_torch.native.determinants import spectral_log_det as spectral_log_det
from invconv_torch.native.exponential import counted as counted
from invconv_torch.native.exponential import exponential as exponential
from invconv_torch.native.exponential import exponential_gram as exponential_gram
from invconv_torch.native.filters import filtered as filtered
from invconv_torch.native.host import TorchOps, bare, require_onnx_form
from invconv_torch.native.kernels import add_pivots as add_pivots
from invconv_torch.native.kernels import by_frequencies as by_frequencies
from invconv_torch.native.nodes import APPLY, GRAM, MATMUL, SOLVE, RecordedSolver, run
from invconv_torch.native.nodes import evaluate as evaluate

ARRAY_OPS = TorchOps
_TRIANGLES = {lower: TriangleOfRows(lower) for lower in (False, True)}


# See `invconv.kernels.primitives.matmul`.
matmul = functools.partial(run, MATMUL, None)  # of two tensors

# See `invconv.kernels.maps`.
apply = functools.partial(run, APPLY)  # of a family, its weights and x
gram = functools.partial(run, GRAM)  # of a family, x and y


def factor(family: Family, w: Tensor, shape: tuple[int, ...]) -> Any:
    """See `invconv.kernels.maps.factor`."""
    if family.solved not in ("causal", "spectral"):
        return family.factor(w, shape)
    if torch.compiler.is_compiling():
        require_onnx_form()
    known = kernels.factor(family, w, shape, quiet=False) if bare(w) else None
    return RecordedSolver(family, w, known)


def triangular_solve(matrix: Tensor, rhs: Tensor, *, lower: bool) -> Tensor:
    """See `invconv.kernels.primitives.triangular_solve`."""
    require_onnx_form()
    return run(SOLVE, (_TRIANGLES[lower], None), matrix, rhs)
