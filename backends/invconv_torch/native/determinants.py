"""Log-determinants and inverses of matrices (..., C, C), and log-determinants of spectra.

The host never waits for a device. PyTorch's `slogdet` and `inv` would, to raise for a singular
matrix; here a zero pivot gives -inf, and a singular matrix NaN.

In compiled code the log-determinant of a spectrum is an operator that hides complex numbers, since
Inductor mistakes the strides in the derivative of a complex LU factorisation, and raises.
"""

import math
from typing import Any

import torch
from torch import Tensor

from invconv.kernels.frequencies import spectrum
from invconv_torch.native.host import require_onnx_form
from invconv_torch.native.kernels import Settings
from invconv_torch.native.nodes import Rule, run


def log_of_pivots(matrices: Tensor) -> Tensor:
    """Return log|det A|, shape (...), by LU factors."""
    factors = torch.linalg.lu_factor_ex(matrices)[0]
    return factors.diagonal(dim1=-2, dim2=-1).contiguous().abs().log().sum(-1)


def inverse_or_nan(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.inverse_or_nan`; a singular matrix gives NaN."""
    inverse, info = torch.linalg.inv_ex(matrices)
    return inverse.masked_fill(info.bool()[..., None, None], math.nan)


def log_abs_det(matrices: Tensor) -> Tensor:
    """See `invconv.kernels.primitives.log_abs_det`.

    LU factors are used instead of slogdet, which takes half as long again on a CPU and may make the
    host wait for a device; and PyTorch takes the derivative of its forward-mode derivative for
    zero.
    """
    require_onnx_form()
    return run(LOG_ABS_DET, None, matrices)


def spectral_log_det(kernel: Tensor, family: Any, shape: tuple[int, ...]) -> Tensor:
    """See `invconv.kernels.frequencies.spectrum.spectral_log_det`."""
    if torch.compiler.is_compiling():
        return run(LOG_DET, (family, shape), kernel)
    return _log_det((family, shape), kernel)


def _log_det(settings: Settings, kernel: Tensor) -> Tensor:
    return torch.as_tensor(spectrum.spectral_log_det.agnostic(kernel, *settings))


def _gradient(settings: Settings, kernel: Tensor) -> Tensor:
    return torch.as_tensor(spectrum.spectral_log_det_vjp(kernel, *settings))


def _none_compiled(*_: Any) -> Any:
    raise NotImplementedError("torch.compile has no forward mode, and no derivative of a gradient")


GRADIENT = Rule(
    "spectral_log_det_vjp",
    _gradient,
    lambda family, kernel: kernel.shape,
    False,
    _none_compiled,
    _none_compiled,
)
LOG_DET = Rule(
    "spectral_log_det",
    _log_det,
    lambda family, kernel: (),
    False,
    lambda settings, saved, bar, wanted: (bar * run(GRADIENT, settings, *saved),),
    _none_compiled,
)
LOG_ABS_DET = Rule(
    "log_abs_det",
    lambda _, matrices: log_of_pivots(matrices),
    lambda _, matrices: matrices.shape[:-2],
    False,
    lambda _, saved, bar, wanted: (bar[..., None, None] * inverse_or_nan(*saved).mH,),
    lambda _, saved, dot: (inverse_or_nan(*saved) @ dot).diagonal(dim1=-2, dim2=-1).sum(-1).real,
)
