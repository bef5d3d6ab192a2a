"""The circulant 1x1 convolution (CDFlow, NeurIPS 2025, arXiv 2510.25323): 3 C parameters.

    W = diag(left) circ(c) diag(right),    circ(c)[i, j] = c[(i - j) mod C]

    log|det W| = sum of log|left| + sum of log|c_hat| + sum of log|right|

with c_hat the Fourier transform of c (`kernels.frequencies.circulant_steps`).
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, log_abs, namespace, size, total
from invconv.arrays.settings import generator, optional_ndim, positive_int
from invconv.kernels.frequencies.circulant_steps import (
    CirculantSteps,
    channel_multiplicity,
    circulant_matrix,
    circulant_vjp,
    from_spectrum,
    inverse_of,
    spectrum,
)
from invconv.operators.base.fields import array
from invconv.operators.base.protocol import Gradients
from invconv.operators.pointwise.factored import Factored
from invconv.trust.bound import Bounds, largest_entry, row_sum
from invconv.trust.gains import squashed


class CirculantConv1x1(Factored, mixing="circulant"):
    """A 1x1 convolution with W = diag(left) circ(c) diag(right): 3 C parameters.

    circ(c)[i, j] = c[(i - j) mod C] is a periodic convolution along the channels, and
    log det = N (sum log|left| + sum log|c_hat| + sum log|right|), c_hat the Fourier transform of c.

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
    _: KW_ONLY
    ndim: int | None = None

    def validate(self) -> None:
        """See `Fields`."""
        optional_ndim(self)

    @classmethod
    def init(
        cls,
        channels: int,
        *,
        ndim: int | None = None,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return a random circulant rotation; NumPy float64 unless ``like`` is given.

        |c_hat| = 1 with random phases, left and right are 1.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import CirculantConv1x1
        >>> w = CirculantConv1x1.init(3, rng=np.random.default_rng(0)).matrix()
        >>> bool(np.allclose(w @ w.T, np.eye(3)))
        True
        """
        channels = positive_int("channels", channels)
        turns = np.exp(2j * np.pi * generator(rng).random(channels // 2 + 1))
        real = np.arange(len(turns)) * 2 % channels == 0  # frequencies that are real
        turns[real] = np.sign(turns[real].real)
        circulant = from_spectrum(turns.real.copy(), turns.imag.copy(), channels)
        conv = cls(np.ones(channels), circulant, np.ones(channels), ndim=ndim)
        return conv if like is None else conv.asarrays(like)

    def transpose(self) -> CirculantConv1x1:
        """Return diag(right) circ(c)^T diag(left), without bias; circ(c)^T is circ(c reversed)."""
        xp, c = namespace(self.circulant), self.circulant
        backwards = xp.concat([c[:1], xp.flip(c[1:], axis=0)])
        return CirculantConv1x1(self.right, backwards, self.left, ndim=self.ndim)

    def _within(self, gain: float) -> Self:
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

    def _matrix(self) -> Array:
        return self._weights_saving()[0]

    def _weights_saving(self) -> tuple[Array, Any]:
        inner = circulant_matrix(self.circulant)
        return self.left[:, None] * inner * self.right[None, :], inner

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        xp = namespace(w_bar)
        inner = circulant_matrix(self.circulant) if memo is None else memo
        left, right = self.left[:, None], self.right[None, :]
        return {
            "left": xp.sum(w_bar * inner * right, axis=1),
            "circulant": circulant_vjp(w_bar * left * right),
            "right": xp.sum(w_bar * left * inner, axis=0),
        }

    def _log_det(self, shape: Shape) -> Array:
        half = namespace(self.circulant).hypot(*spectrum(self.circulant))
        often = constant(channel_multiplicity(self.channels), half, half.dtype)
        outer = total(log_abs(self.left)) + total(log_abs(self.right))
        return size(shape) * (outer + total(often * log_abs(half)))

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        self._require_regular(shape, self._log_det(shape))
        bar = size(shape) * log_det_bar
        # the sum of log|c_hat| has the derivative C circ(c)^-T e_0
        real, imag = inverse_of(*spectrum(self.circulant))
        return {
            "left": bar / self.left,
            "circulant": (bar * self.channels) * from_spectrum(real, -imag, self.channels),
            "right": bar / self.right,
        }

    def _steps(self) -> CirculantSteps:
        return CirculantSteps.of(self.left, self.circulant, self.right)

    def _steps_vjp(self, *bars: Array) -> Gradients:
        return dict(zip(("left", "circulant", "right"), bars, strict=True))

    def _bounds(self, shape: Shape) -> list[Bounds]:
        steps = self._steps()
        back = circulant_matrix(from_spectrum(*steps.inverse, self.channels))
        scales = [
            Bounds(float(abs(v).max()), float((1 / abs(v)).max()), 2)
            for v in (self.right, self.left)
        ]
        inner = Bounds(row_sum(circulant_matrix(self.circulant)), row_sum(back), 2 * self.channels)
        last = Bounds(scales[1].gain, scales[1].back, 2, largest_entry(self.bias))
        return [scales[0], inner, last]

    @property
    def _singular_hint(self) -> str:
        return "left, right or the Fourier transform of circulant has a zero; change it"
