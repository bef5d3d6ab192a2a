"""Invertible convolutions: value, inverse and log-determinant, on any array library.

After E. Hoogeboom, R. van den Berg, M. Welling, Emerging Convolutions for Generative Normalizing
Flows, ICML 2019 (arXiv 1901.11137).
"""

from invconv.actnorm import ActNorm
from invconv.autoregressive import AutoregressiveConv
from invconv.base import InvertibleConv
from invconv.compose import Chain, Inverse
from invconv.diagnosis import Diagnosis, diagnose
from invconv.emerging import EmergingConv
from invconv.errors import IllConditionedWarning, InvalidFileError, SingularConvError
from invconv.files import load, save
from invconv.kernels.threads import set_num_threads
from invconv.periodic import PeriodicConv
from invconv.plu import PLUConv1x1
from invconv.pointwise import Conv1x1
from invconv.prepared import PreparedInverse
from invconv.promises import bounded
from invconv.qr import QRConv1x1
from invconv.squeezing import squeeze, unsqueeze

__version__ = "0.1.0"

__all__ = [
    "ActNorm",
    "AutoregressiveConv",
    "Chain",
    "Conv1x1",
    "Diagnosis",
    "EmergingConv",
    "IllConditionedWarning",
    "InvalidFileError",
    "Inverse",
    "InvertibleConv",
    "PLUConv1x1",
    "PeriodicConv",
    "PreparedInverse",
    "QRConv1x1",
    "SingularConvError",
    "bounded",
    "diagnose",
    "load",
    "save",
    "set_num_threads",
    "squeeze",
    "unsqueeze",
]
