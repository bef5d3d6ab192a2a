"""1x1 convolutions with Householder reflections: rotations, with and without a factor that scales.

    Q = H_1 H_2 ... H_m,    H_i = I - 2 v_i v_i^T / (v_i^T v_i)

Q^-1 = Q^T, and log|det Q| = 0. Orthogonal: W = Q (Tomczak & Welling, 2016). Householder: W =
Q diag(exp(s)). QR: W = Q (U + diag(scale)), as flexible as a plain matrix, and stable (the paper's
section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, diagonal, namespace, readable, to_numpy
from invconv.families.family import Family
from invconv.families.pointwise import LogScale
from invconv.families.structured import Householder, KnownTriangular
from invconv.kernels.primitives import add_pivots
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.pointwise.conv1x1 import Pointwise
from invconv.trust.gains import squashed, triangle_within

_REFLECTIONS, _LOG_SCALE, _UPPER = Householder(), LogScale(), KnownTriangular(lower=False)


class Reflecting(Pointwise, abstract=True):
    """A 1x1 convolution with reflections of rows v_i."""

    reflectors: Array = array("m", "C")

    def validate(self) -> None:
        super().validate()
        if readable(self.reflectors):
            zero = ~to_numpy(self.reflectors).any(axis=1)
            if zero.any():
                raise ValueError(
                    f"reflectors: expected no zero vector, got one in row {int(zero.argmax())}"
                )

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"reflectors": rng.standard_normal((channels, channels))}


class OrthogonalConv1x1(Reflecting, mixing="orthogonal"):
    """A 1x1 convolution with W = H_1 ... H_m, a product of Householder reflections.

    y[:, p] = W x[:, p] + b, log det = 0. The inverse is a product with W^T, and the condition is 1
    for all parameters. Every orthogonal matrix is a product of at most C reflections; the
    determinant is 1 for an even number of reflections, -1 for an odd one.
    `init` gives C random reflections.

    Parameters
    ----------
    reflectors : array, shape (m, C)
        v_1 ... v_m of H_i = I - 2 v_i v_i^T / (v_i^T v_i), none of them zero; m = 0 gives W = I.
        Their lengths do not matter.
    bias : array, shape (C,), optional
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

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(_REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"reflectors": bars[0]}

    def transpose(self) -> OrthogonalConv1x1:
        """Return the same reflections in the opposite order, without bias."""
        return OrthogonalConv1x1(_REFLECTIONS.transposed(self.reflectors)[1], ndim=self.ndim)

    def within(self, gain: float) -> Self:
        """Return the operator itself: its inverse has norm 1."""
        return self


class HouseholderConv1x1(Reflecting):
    """A 1x1 convolution, y[:, p] = W x[:, p] + b, with W = H_1 ... H_m diag(exp(log_scale)).

    log det = N sum(log_scale), and W^-1 = diag(exp(-log_scale)) H_m ... H_1. `init` gives C
    random reflections with scales of 1.

    Parameters
    ----------
    reflectors : array, shape (m, C)
        As for `OrthogonalConv1x1`.
    log_scale : array, shape (C,)
    bias : array, shape (C,), optional
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
        return super().drawn(channels, rng) | {"log_scale": np.zeros(channels)}

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(_LOG_SCALE, self.log_scale), (_REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return dict(zip(("log_scale", "reflectors"), bars, strict=True))

    def within(self, gain: float) -> Self:
        return self.replace(log_scale=squashed(self.log_scale, math.log(gain)))


class QRConv1x1(Reflecting, mixing="qr"):
    """A 1x1 convolution, y[:, p] = W x[:, p] + b, with W = H_1 ... H_m (U + diag(scale)).

    log det = N sum(log|scale|). `init` gives C random reflections, U = 0 and a scale of 1.

    Parameters
    ----------
    reflectors : array, shape (m, C)
        As for `OrthogonalConv1x1`.
    upper : array, shape (C, C)
        U is its strict upper triangle; other entries are ignored.
    scale : array, shape (C,)
    bias : array, shape (C,), optional
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
        others = {"upper": np.zeros((channels, channels)), "scale": np.ones(channels)}
        return super().drawn(channels, rng) | others

    def factors(self) -> Sequence[tuple[Family, Any]]:
        strict = namespace(self.upper).triu(self.upper, k=1)
        upper = add_pivots(strict, (), self.scale)
        return [(_UPPER, (upper, self.scale)), (_REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        (upper, scale), reflectors = bars
        strict = namespace(upper).triu(upper, k=1)
        return {"reflectors": reflectors, "upper": strict, "scale": diagonal(upper) + scale}

    def within(self, gain: float) -> Self:
        strict = namespace(self.upper).triu(self.upper, k=1)
        scale, strict, _ = triangle_within(self.scale - 1, strict, gain)
        return self.replace(upper=scale[:, None] * strict, scale=scale)
