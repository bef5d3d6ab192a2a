"""QR 1x1 convolutions (the paper's section 3.3): as flexible as plain ones, and stable."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, diagonal, namespace
from invconv.families.family import Family
from invconv.families.pointwise import KnownTriangular
from invconv.kernels.primitives import add_pivots
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.pointwise.orthogonal import REFLECTIONS, OfReflections
from invconv.trust.gains import triangle_within

_UPPER = KnownTriangular(lower=False)


class QRConv1x1(OfReflections, mixing="qr"):
    r"""A 1x1 convolution of QR factors, Q a product of Householder reflections.

    $$y[:, p] = W x[:, p] + b, \qquad W = Q (U + \text{diag}(s)), \qquad Q = H_1 \cdots H_m$$

    $$H_i = I - \frac{2\, v_i v_i^T}{v_i^T v_i}, \qquad \log|\det K| = N \sum_c \log|s[c]|$$

    with s the ``scale`` and N pixels. `init` gives C random reflections, U = 0 and a scale of 1.

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
        return [(_UPPER, (upper, self.scale)), (REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        (upper, scale), reflectors = bars
        strict = namespace(upper).triu(upper, k=1)
        return {"reflectors": reflectors, "upper": strict, "scale": diagonal(upper) + scale}

    def within(self, gain: float) -> Self:
        strict = namespace(self.upper).triu(self.upper, k=1)
        scale, strict, _ = triangle_within(self.scale - 1, strict, gain)
        return self.replace(upper=scale[:, None] * strict, scale=scale)
