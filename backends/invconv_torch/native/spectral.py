"""Log-determinants of spectra in compiled code, as an operator that hides complex numbers.

Inductor mistakes the strides in the derivative of a complex LU factorisation, and raises. A program
of torch.export has the formula itself, since it must run without our operators.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from invconv.kernels.frequencies import spectrum
from invconv.kernels.frequencies.spectrum import SpectralFamily
from invconv_torch.native import ops
from invconv_torch.native.autodiff import Rule, run
from invconv_torch.traced import Watch, watch

Tensor: TypeAlias = torch.Tensor
Settings: TypeAlias = tuple[SpectralFamily, tuple[int, ...]]


def spectral_log_det(kernel: Tensor, family: SpectralFamily, shape: tuple[int, ...]) -> Tensor:
    """See `invconv.kernels.frequencies.spectrum.spectral_log_det`."""
    if watch(kernel) is Watch.COMPILER and not torch.compiler.is_exporting():
        return run(LOG_DET, (family, shape), kernel)
    return _log_det((family, shape), kernel)


def _log_det(settings: Settings, kernel: Tensor) -> Tensor:
    return torch.as_tensor(spectrum.spectral_log_det.agnostic(kernel, *settings))


def _gradient(settings: Settings, kernel: Tensor) -> Tensor:
    return torch.as_tensor(spectrum.spectral_log_det_vjp(kernel, *settings))


def _none_compiled(*_: Any) -> Any:
    raise NotImplementedError("torch.compile has no forward mode, and no derivative of a gradient")


GRADIENT = Rule(
    _gradient,
    lambda settings, kernel: ops.spectral_log_det_vjp(settings[0].text, kernel, settings[1]),
    False,
    _none_compiled,
    _none_compiled,
)
LOG_DET = Rule(
    _log_det,
    lambda settings, kernel: ops.spectral_log_det(settings[0].text, kernel, settings[1]),
    False,
    lambda settings, saved, bar, wanted: (bar * run(GRADIENT, settings, *saved),),
    _none_compiled,
)
