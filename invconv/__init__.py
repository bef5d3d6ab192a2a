"""Invertible convolutions: value, inverse and log-determinant, on any array library.

After E. Hoogeboom, R. van den Berg, M. Welling, Emerging Convolutions for Generative Normalizing
Flows, ICML 2019 (arXiv 1901.11137).
"""

import re
from typing import TYPE_CHECKING, Any

from invconv import extend as extend
from invconv.arrays.errors import IllConditionedWarning, InvalidFileError, SingularConvError
from invconv.files.saving import load, save
from invconv.kernels.cpu.threads import set_num_threads
from invconv.kernels.primitives import Plan
from invconv.operators.autoregressive import AutoregressiveConv
from invconv.operators.base.calls import PreparedInverse
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.chain import Chain
from invconv.operators.emerging import EmergingConv
from invconv.operators.exponential import ExponentialConv
from invconv.operators.filters import (
    filtfilt,
    lfilter,
    lfilter_zi,
    sosfilt,
    sosfilt_zi,
    sosfiltfilt,
    varying_lfilter,
)
from invconv.operators.interpolation import map_coordinates
from invconv.operators.inverse import Inverse
from invconv.operators.least_squares import damp_for_noise
from invconv.operators.linear_operators import aslinearoperator
from invconv.operators.periodic import PeriodicConv
from invconv.operators.pointwise.actnorm import ActNorm
from invconv.operators.pointwise.circulant import CirculantConv1x1
from invconv.operators.pointwise.conv1x1 import Conv1x1
from invconv.operators.pointwise.householder import HouseholderConv1x1
from invconv.operators.pointwise.orthogonal import OrthogonalConv1x1
from invconv.operators.pointwise.plu import PLUConv1x1
from invconv.operators.pointwise.qr import QRConv1x1
from invconv.operators.propagation import propagate, unpropagate
from invconv.operators.psf import from_psf
from invconv.operators.richardson_lucy import richardson_lucy
from invconv.operators.splines import spline_filter
from invconv.operators.squeezing import squeeze, unsqueeze
from invconv.operators.symmetric import SymmetricConv
from invconv.stability.bounded import bounded
from invconv.stability.diagnosis import Diagnosis, diagnose

if TYPE_CHECKING:  # imported with NumPy's first array; here PyInstaller sees that it is needed
    from invconv.kernels import numpy_primitives as numpy_primitives
else:  # a type checker would think that every name is there

    def __getattr__(name: str) -> Any:
        text = f"module {__name__!r} has no attribute {name!r}"
        if re.fullmatch(r"[A-Z]\w+[123]d", name):
            text += f"; layers of one, two and three axes are in {__name__}_torch"
        raise AttributeError(text)


__version__ = "1.0.0"

__all__ = [
    "ActNorm",
    "AutoregressiveConv",
    "Chain",
    "CirculantConv1x1",
    "Conv1x1",
    "Diagnosis",
    "EmergingConv",
    "ExponentialConv",
    "HouseholderConv1x1",
    "IllConditionedWarning",
    "InvalidFileError",
    "Inverse",
    "InvertibleConv",
    "OrthogonalConv1x1",
    "PLUConv1x1",
    "PeriodicConv",
    "Plan",
    "PreparedInverse",
    "QRConv1x1",
    "SingularConvError",
    "SymmetricConv",
    "aslinearoperator",
    "bounded",
    "damp_for_noise",
    "diagnose",
    "filtfilt",
    "from_psf",
    "lfilter",
    "lfilter_zi",
    "load",
    "map_coordinates",
    "propagate",
    "richardson_lucy",
    "save",
    "set_num_threads",
    "sosfilt",
    "sosfilt_zi",
    "sosfiltfilt",
    "spline_filter",
    "squeeze",
    "unpropagate",
    "unsqueeze",
    "varying_lfilter",
]
