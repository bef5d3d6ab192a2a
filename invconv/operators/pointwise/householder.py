"""1x1 convolutions of reflections after scales."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array
from invconv.families.family import Family
from invconv.families.pointwise import LOG_SCALE
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.pointwise.orthogonal import REFLECTIONS, OfReflections
from invconv.trust.gains import squashed


class HouseholderConv1x1(OfReflections, mixing="householder"):
    r"""A 1x1 convolution of Householder reflections after positive scales.

    $$y[:, p] = W x[:, p] + b, \qquad W = H_1 \cdots H_m\, \text{diag}(e^s)$$

    $$H_i = I - \frac{2\, v_i v_i^T}{v_i^T v_i}, \qquad \log|\det K| = N \sum_c s[c]$$

    with s the ``log_scale``, N pixels, and $W^{-1} = \text{diag}(e^{-s})\, H_m \cdots H_1$. `init`
    gives C random reflections with scales of 1.

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
        return [(LOG_SCALE, self.log_scale), (REFLECTIONS, self.reflectors)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return dict(zip(("log_scale", "reflectors"), bars, strict=True))

    def within(self, gain: float) -> Self:
        return self.replace(log_scale=squashed(self.log_scale, math.log(gain)))
