"""How far a computed result may be from the true one: derived, not tuned.

With eps the unit roundoff's double, and m the length of the longest sum that a result goes
through (C prod(k) for a convolution, C for a C x C matrix, log2 N more for an FFT; the sum over
the steps of a composition), a sum of products has a forward and backward error of at most about
m eps. ``C_FACTOR`` is the only constant, and stands for what the count leaves out: the solve
behind a product, the cast of a result, the order of the sums.

    forward    |error| <= c m eps (|K| |x| + |b|)
    residual   |K x + b - y| <= c m eps (|K| |x| + |b| + |y|)
    inverse    |error| <= c m eps |K| |K^-1| (|x| + |K^-1| |b|)
    log-det    c C eps sum |log terms|, where it is a sum of logs of given numbers;
               + c m eps sum over the matrices of their condition, where it comes from an LU
               + n |K| |K^-1| times the eps of the oracle's own LU, of n unknowns

The half types are computed in float32, whose eps it is then; the cast of a result adds the half
type's own eps times its norm.

|K| is the 2-norm, for a composition the product of its steps' (an intermediate may be that large).
"""

import math
from dataclasses import astuple, dataclass

import numpy as np

import invconv as ic
from invconv.extend import Transposed
from invconv_conformance.truth import oracle
from invconv_conformance.truth.oracle import EXTENDED, ExtendedLU, Matrix, Shape

C_FACTOR = 10.0

# the smallest number of a half type, below which a cast gives 0
LEAST = {"float16": 2.0**-24, "bfloat16": 2.0**-133}
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Scales:
    """The sizes that the bounds of an operator on a grid depend on."""

    terms: float  # m
    gain: float  # |K|
    loss: float  # |K^-1|
    logs: float  # the bound of the log-determinant's error, in units of c eps

    @property
    def condition(self) -> float:
        """|K| |K^-1|."""
        return self.gain * self.loss


def scales(
    conv: ic.InvertibleConv, shape: Shape, factored: tuple[Matrix, ExtendedLU] | None = None
) -> Scales:
    """Return the scales of an operator of NumPy float64 arrays.

    ``factored`` is its dense matrix and that matrix's factors, where these are known.
    """
    if isinstance(conv, ic.Inverse):
        s = scales(conv.conv, shape)
        return Scales(s.terms, s.loss, s.gain, s.logs)
    if isinstance(conv, Transposed):
        return scales(conv.conv, shape)
    if isinstance(conv, ic.Chain | ic.EmergingConv):
        parts = conv.steps if isinstance(conv, ic.Chain) else (conv.first, conv.second)
        found = np.asarray([astuple(scales(part, shape)) for part in parts])
        gain, loss = found[:, 1:3].prod(axis=0)
        return Scales(float(found[:, 0].sum()), float(gain), float(loss), float(found[:, 3].sum()))
    if factored is None:
        matrix = oracle.affine(conv, shape, EXTENDED)[0]
        factored = matrix, ExtendedLU(matrix)
    values, loss = np.linalg.svd(factored[0].astype(float), compute_uv=False), math.inf
    if np.isfinite(factored[1].log_det()):  # the least singular value drowns in float64's eps
        loss = float(np.linalg.norm(factored[1].inverse.astype(float), 2))
    gain = float(values[0])
    with np.errstate(divide="ignore"):  # a singular operator has a value, and no inverse to bound
        terms, logs = _leaf(conv, shape, float(np.abs(np.log(values)).sum()), gain * loss)
    return Scales(terms, gain, loss, logs)


def _leaf(
    conv: ic.InvertibleConv, shape: Shape, log_values: float, condition: float
) -> tuple[float, float]:
    channels, pixels = conv.channels, math.prod(shape)
    if isinstance(conv, ic.AutoregressiveConv):
        pivots = np.diagonal(next(oracle.autoregressive_taps(conv))[1]).astype(float)
        terms = channels * math.prod(conv.kernel.shape[2:])
        return terms, channels * pixels * float(np.abs(np.log(np.abs(pivots))).sum())
    if isinstance(conv, ic.PeriodicConv | ic.SymmetricConv):
        # the transform between mirrors or walls may be a sum over each axis
        halved = isinstance(conv, ic.SymmetricConv)
        taps = math.prod(2 * k - 1 if halved else k for k in conv.kernel.shape[2:])
        terms = channels * taps + (sum(shape) if halved else math.log2(2 * pixels))
        return terms, channels * log_values + terms * pixels * condition
    if isinstance(conv, ic.ExponentialConv):
        return _exponential(conv, pixels)
    if isinstance(conv, ic.QRConv1x1):
        terms = channels * (1 + conv.reflectors.shape[0])
        return terms, channels * pixels * float(np.abs(np.log(np.abs(conv.scale))).sum())
    if isinstance(conv, ic.CirculantConv1x1):
        outer = np.abs(np.log(np.abs([conv.left, conv.right]))).sum()
        return 2 * channels, channels * (pixels * float(outer) + log_values + pixels * condition)
    if isinstance(conv, ic.OrthogonalConv1x1):
        return channels * (1 + conv.reflectors.shape[0]), 0.0
    if isinstance(conv, ic.PLUConv1x1 | ic.ActNorm):
        return 2 * channels, channels * pixels * float(np.abs(conv.log_scale).sum())
    return channels, channels * (log_values + pixels * condition)


def _exponential(conv: ic.ExponentialConv, pixels: int) -> tuple[float, float]:
    """Return m and the log-determinant's scale of e^M.

    A step of the series rounds (C T + 2) phi e^phi at most, with phi <= 4 its norm, the share of
    the step in |M|: the norms of the products |M|^n / n! add up to n |M|^n / n! = |M| e^|M|.
    """
    taps = conv.kernel.reshape(conv.channels, conv.channels, -1)
    norm = float(min(np.abs(taps).sum(axis=(a, 2)).max() for a in (0, 1)))
    steps = max(1, math.ceil(norm / 4))
    terms = (taps[0].size + 2) * (norm + steps) * math.exp(min(norm / steps, 2))
    sizes = float(np.abs(np.diagonal(taps)).sum())
    return terms, conv.channels * pixels * sizes + 1
