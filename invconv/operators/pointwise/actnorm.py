"""Activation normalisation (Kingma & Dhariwal, Glow, 2018): a scale and a shift per channel.

y[c, p] = exp(log_scale[c]) x[c, p] + bias[c]        log|det| = N sum of log_scale
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    cast,
    log_of_exp,
    namespace,
    readable,
    size,
    to_numpy,
    zeros,
)
from invconv.arrays.settings import optional_ndim, positive_int
from invconv.kernels.families import ScaleFamily
from invconv.kernels.primitives import per_channel
from invconv.operators.base.calls import as_batch
from invconv.operators.base.fields import array
from invconv.operators.base.linear import Linear
from invconv.operators.base.protocol import Gradients
from invconv.trust import condition
from invconv.trust.bound import Bounds, largest_entry
from invconv.trust.gains import squashed


class ActNorm(Linear):
    """y = exp(log_scale) x + bias, per channel; log det = N sum(log_scale).

    Parameters
    ----------
    log_scale : array, shape (C,)
    bias : array, shape (C,), or None
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    >>> import numpy as np
    >>> norm = ActNorm(np.log([2.0, 3.0]), np.asarray([0.0, 1.0]))
    >>> np.round(norm.forward(np.ones((1, 2, 1)))[0, :, 0], 12)
    array([2., 4.])
    >>> np.isclose(norm.log_det((8, 8)), 64 * np.log(6))
    np.True_
    """

    log_scale: Array = array("C")
    bias: Array | None = array("C", optional=True)
    _: KW_ONLY
    ndim: int | None = None

    _saves_log_det = True
    _pixelwise = True

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
        """Return the identity (nothing is random); NumPy float64 unless ``like`` is given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import ActNorm
        >>> ActNorm.init(2, ndim=2).parameters()
        {'log_scale': array([0., 0.]), 'bias': array([0., 0.])}
        """
        channels = positive_int("channels", channels)
        conv = cls(np.zeros(channels), np.zeros(channels), ndim=ndim)
        return conv if like is None else conv.asarrays(like)

    def initialize(self, x: Array) -> Self:
        """Return a copy; its output for these images has mean 0 and variance 1 in every channel.

        log_scale = -log s and bias = -m / s, with m and s the mean and the standard deviation of a
        channel over batch and pixels: Glow's data-dependent initialisation. Without a bias only
        the scale is chosen.

        Parameters
        ----------
        x : array, shape (*batch, C, *spatial)
            The inputs of this layer: the images after the layers before it.

        Raises
        ------
        ValueError
            If a channel is constant or not finite (if values are readable).

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import ActNorm
        >>> x = np.random.default_rng(0).normal(3.0, 10.0, (8, 2, 16, 16))
        >>> y = ActNorm.init(2).initialize(x).forward(x)
        >>> bool(np.allclose(y.mean((0, 2, 3)), 0)), bool(np.allclose(y.std((0, 2, 3)), 1))
        (True, True)
        """
        call = as_batch(self, "x", x)
        xp, axes = namespace(call.x), (0, *range(2, call.x.ndim))
        number = size(call.x.shape) // self.channels
        mean = xp.sum(call.x, axis=axes) / number
        centred = call.x - per_channel(mean, call.x)
        deviation = xp.sqrt(xp.sum(centred * centred, axis=axes) / number)
        if readable(deviation):
            values = to_numpy(deviation)
            if not np.all(np.isfinite(values) & (values > 0)):
                raise ValueError(
                    f"x: expected images that vary in every channel and are finite, got standard "
                    f"deviations {values.tolist()}; give more images, with noise"
                )
        dtype = self.log_scale.dtype
        arrays = {"log_scale": cast(-xp.log(deviation), dtype)}
        if self.bias is not None:
            arrays["bias"] = cast(-mean / deviation, dtype)
        return self.replace(**arrays)

    def transpose(self) -> ActNorm:
        """Return the same scaling, without bias."""
        return ActNorm(self.log_scale, None, ndim=self.ndim)

    def _within(self, gain: float) -> Self:
        return self.replace(log_scale=squashed(self.log_scale, math.log(gain)))

    def _scale(self) -> Array:
        return namespace(self.log_scale).exp(self.log_scale)

    @property
    def _family(self) -> ScaleFamily:
        return ScaleFamily()

    def _weights(self) -> Array:
        return self._scale()

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        return {"log_scale": w_bar * self._scale()}

    def _log_det(self, shape: Shape) -> Array:
        xp = namespace(self.log_scale)
        return size(shape) * xp.sum(log_of_exp(self.log_scale, self._scale()))

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        return {"log_scale": size(shape) * log_det_bar + zeros((self.channels,), self.log_scale)}

    def _condition(self, shape: Shape) -> condition.Condition:
        scale = self._scale()
        value = float(scale.max() / scale.min()) if scale.min() else math.inf
        return condition.Condition(value, "2-norm", channel=int(scale.argmin()))

    def _bounds(self, shape: Shape) -> list[Bounds]:
        scale = self._scale()
        back = 1 / float(scale.min()) if scale.min() else math.inf
        return [Bounds(float(scale.max()), back, 2, largest_entry(self.bias))]

    @property
    def _singular_hint(self) -> str:
        return "exp(log_scale) is zero for a channel; raise log_scale"
