"""Orthogonal 1x1 convolutions: products of reflections (Tomczak & Welling, 2016)."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, readable, to_numpy
from invconv.families.family import Family
from invconv.families.pointwise import Householder
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.pointwise.conv1x1 import Pointwise

REFLECTIONS = Householder()


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
    r"""A 1x1 convolution with a product of Householder reflections.

    $$y[:, p] = W x[:, p] + b, \qquad \log|\det K| = 0$$

    $$W = H_1 \cdots H_m, \qquad H_i = I - \frac{2\, v_i v_i^T}{v_i^T v_i}$$

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
        return [(REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"reflectors": bars[0]}

    def transpose(self) -> "OrthogonalConv1x1":
        """Return the same reflections in the opposite order, without bias."""
        return OrthogonalConv1x1(REFLECTIONS.transposed(self.reflectors)[1], ndim=self.ndim)

    def within(self, gain: float) -> Self:
        """Return the operator itself: its inverse has norm 1."""
        return self
