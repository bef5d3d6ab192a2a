"""1x1 convolutions of reflections: orthogonal ones (Tomczak & Welling, 2016), with scales, and QR.

QR (the paper's section 3.3) has a triangular matrix, too: as flexible as a plain one, and stable.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, diagonal, namespace, readable, to_numpy
from invconv.families.family import Family
from invconv.families.pointwise import LOG_SCALE, Householder, KnownTriangular
from invconv.kernels.primitives import add_pivots
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.pointwise.conv1x1 import Pointwise
from invconv.trust.gains import squashed, triangle_within

_REFLECTIONS = Householder()
_UPPER = KnownTriangular(lower=False)


class OfReflections(Pointwise, abstract=True):
    """A 1x1 convolution with Householder reflections, whose vectors are the rows of an array."""

    reflectors: Array = array("m", "C")

    def validate(self) -> None:
        super().validate()
        if readable(self.reflectors):
            zero = ~to_numpy(self.reflectors).any(axis=1)
            if zero.any():
                raise ValueError(
                    f"reflectors: expected no zero vector, got one in row {int(zero.argmax())}"
                )


class OrthogonalConv1x1(OfReflections, mixing="orthogonal"):
    """A 1x1 convolution with a product of Householder reflections.

        y[:, p] = W x[:, p] + b,    log det = 0
        W = H_1 ... H_m,    H_i = I - 2 v_i v_i^T / (v_i^T v_i)

    The inverse is a product with W^T, and the condition is 1
    for all parameters. Every orthogonal matrix is a product of at most C reflections; the
    determinant is 1 for an even number of reflections, -1 for an odd one.
    `init` gives C random reflections.

    Parameters
    ----------
    reflectors : array, shape (m, C)
        v_1 ... v_m, none of them zero; m = 0 gives W = I. Their lengths do not matter.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    A reflection that exchanges two channels:

    >>> import numpy as np
    >>> conv = OrthogonalConv1x1(np.array([[1.0, -1.0]]))
    >>> conv.forward(np.array([[[1.0, 2.0], [3.0, 4.0]]])).round(12)
    array([[[3., 4.],
            [1., 2.]]])
    >>> float(conv.log_det((2,)))
    0.0
    """

    bias: Array | None = array("C", optional=True)

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"reflectors": rng.standard_normal((channels, channels))}

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(_REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"reflectors": bars[0]}

    def transpose(self) -> "OrthogonalConv1x1":
        """Return the same reflections in the opposite order, without bias."""
        return OrthogonalConv1x1(_REFLECTIONS.transposed(self.reflectors)[1], ndim=self.ndim)

    def within(self, gain: float) -> Self:
        """Return the operator itself: its inverse has norm 1."""
        return self


class HouseholderConv1x1(OfReflections, mixing="householder"):
    """A 1x1 convolution of Householder reflections after positive scales.

        y[:, p] = W x[:, p] + b,    W = H_1 ... H_m diag(exp(log_scale))
        H_i = I - 2 v_i v_i^T / (v_i^T v_i)
        W^-1 = diag(exp(-log_scale)) H_m ... H_1,    log det = N sum over c of log_scale[c]

    with N pixels. `init` gives C random reflections with scales of 1.

    Parameters
    ----------
    reflectors : array, shape (m, C)
        v_1 ... v_m, none of them zero; their lengths do not matter.
    log_scale : array, shape (C,)
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    >>> import numpy as np
    >>> conv = HouseholderConv1x1(np.asarray([[1.0, -1.0]]), np.log([2.0, 3.0]))
    >>> conv.matrix().round(12)  # the reflection exchanges two channels
    array([[0., 3.],
           [2., 0.]])
    """

    log_scale: Array = array("C")
    bias: Array | None = array("C", optional=True)

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        reflectors = rng.standard_normal((channels, channels))
        return {"reflectors": reflectors, "log_scale": np.zeros(channels)}

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(LOG_SCALE, self.log_scale), (_REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return dict(zip(("log_scale", "reflectors"), bars, strict=True))

    def within(self, gain: float) -> Self:
        return self.replace(log_scale=squashed(self.log_scale, math.log(gain)))


class QRConv1x1(OfReflections, mixing="qr"):
    """A 1x1 convolution of QR factors, Q a product of Householder reflections.

        y[:, p] = W x[:, p] + b,    W = Q (U + diag(scale)),    Q = H_1 ... H_m
        H_i = I - 2 v_i v_i^T / (v_i^T v_i),    log det = N sum over c of log|scale[c]|

    with N pixels. `init` gives C random reflections, U = 0 and a scale of 1.

    Parameters
    ----------
    reflectors : array, shape (m, C)
        v_1 ... v_m, none of them zero; m = 0 gives Q = I. Their lengths do not matter.
    upper : array, shape (C, C)
        U is its strict upper triangle; other entries are ignored.
    scale : array, shape (C,)
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    >>> import numpy as np
    >>> conv = QRConv1x1(np.asarray([[1.0, -1.0]]), np.zeros((2, 2)), np.asarray([2.0, 3.0]))
    >>> conv.matrix().round(12)  # the reflection exchanges two channels
    array([[0., 3.],
           [2., 0.]])
    """

    upper: Array = array("C", "C")
    scale: Array = array("C")
    bias: Array | None = array("C", optional=True)

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        return {
            "reflectors": rng.standard_normal((channels, channels)),
            "upper": np.zeros((channels, channels)),
            "scale": np.ones(channels),
        }

    def factors(self) -> Sequence[tuple[Family, Any]]:
        upper = add_pivots(namespace(self.upper).triu(self.upper, k=1), (), self.scale)
        return [(_UPPER, (upper, self.scale)), (_REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        (upper, scale), reflectors = bars
        strict = namespace(upper).triu(upper, k=1)
        return {"reflectors": reflectors, "upper": strict, "scale": diagonal(upper) + scale}

    def within(self, gain: float) -> Self:
        strict = namespace(self.upper).triu(self.upper, k=1)
        scale, strict, _ = triangle_within(self.scale - 1, strict, gain)
        return self.replace(upper=scale[:, None] * strict, scale=scale)
