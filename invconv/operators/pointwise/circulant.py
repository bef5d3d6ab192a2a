"""The circulant 1x1 convolution (CDFlow, NeurIPS 2025, arXiv 2510.25323)."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, namespace
from invconv.families.family import Family
from invconv.families.pointwise import SCALE, Circulant
from invconv.kernels.frequencies.circulant import from_spectrum, spectrum
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.pointwise.conv1x1 import Pointwise
from invconv.trust.gains import squashed

_CIRCULANT = Circulant()


class CirculantConv1x1(Pointwise, mixing="circulant"):
    r"""A 1x1 convolution with scales around a circulant matrix: 3 C parameters.

    $$y[:, p] = W x[:, p] + b, \qquad W = \text{diag}(l)\, \text{circ}(c)\, \text{diag}(r)$$

    $$\text{circ}(c)[i, j] = c[(i - j) \bmod C]$$

    $$\log|\det K| = N \sum_i \log|l[i]\, \hat c[i]\, r[i]|$$

    with l and r for left and right, and N pixels. circ(c) is a periodic convolution along the
    channels, and $\hat c$ the Fourier transform of c.
    `init` gives a random circulant rotation: $|\hat c| = 1$ with random phases, left and right 1.

    Parameters
    ----------
    left, circulant, right : array, shape (C,)
        ``circulant`` is c.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    A shift by one channel:

    >>> import numpy as np
    >>> conv = CirculantConv1x1(np.ones(3), np.array([0.0, 1.0, 0.0]), np.ones(3))
    >>> conv.matrix()
    array([[0., 0., 1.],
           [1., 0., 0.],
           [0., 1., 0.]])
    """

    left: Array = array("C")
    circulant: Array = array("C")
    right: Array = array("C")
    bias: Array | None = array("C", optional=True)

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        turns = np.exp(2j * np.pi * rng.random(channels // 2 + 1))
        real = np.arange(len(turns)) * 2 % channels == 0  # frequencies that are real
        turns[real] = np.sign(turns[real].real)
        circulant = from_spectrum(turns.real.copy(), turns.imag.copy(), channels)
        return {"left": np.ones(channels), "circulant": circulant, "right": np.ones(channels)}

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(SCALE, self.right), (_CIRCULANT, self.circulant), (SCALE, self.left)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return dict(zip(("right", "circulant", "left"), bars, strict=True))

    def transpose(self) -> "CirculantConv1x1":
        """Return diag(right) circ(c)^T diag(left), without bias; circ(c)^T is circ(c reversed)."""
        backwards = _CIRCULANT.transposed(self.circulant)[1]
        return CirculantConv1x1(self.right, backwards, self.left, ndim=self.ndim)

    def within(self, gain: float) -> Self:
        """Bound |left|, |c_hat| and |right| from below, a third of the gain for each."""
        xp, limit = namespace(self.left), math.log(gain) / 3
        left, right = (xp.exp(squashed(v - 1, limit)) for v in (self.left, self.right))
        real, imag = spectrum(self.circulant)
        nothing = (real == 0) & (imag == 0)  # a zero has no phase: take 1
        real = xp.where(nothing, xp.ones_like(real), real)
        length = xp.hypot(real, imag)
        factor = xp.exp(squashed(xp.log(length), limit)) / length
        circulant = from_spectrum(factor * real, factor * imag, self.channels)
        return self.replace(left=left, circulant=circulant, right=right)
