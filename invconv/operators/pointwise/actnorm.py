"""Activation normalisation (Kingma & Dhariwal, Glow, 2018)."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    cast,
    namespace,
    per_channel,
    readable,
    size,
    to_numpy,
)
from invconv.families.family import Family
from invconv.families.pointwise import LOG_SCALE
from invconv.kernels.primitives import Map, channel_sums
from invconv.operators.base.calls import as_batch
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.least_squares import regularised
from invconv.operators.pointwise.conv1x1 import Pointwise
from invconv.trust.gains import squashed


class ActNorm(Pointwise):
    r"""A scale and a shift per channel.

    $$y[c, p] = e^{s[c]} x[c, p] + b[c], \qquad \log|\det K| = N \sum_c s[c]$$

    with s the ``log_scale`` and N pixels. `init` gives the identity (nothing is random),
    `initialize` Glow's start for some images.

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

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"log_scale": np.zeros(channels), "bias": np.zeros(channels)}

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
        xp, ndim = namespace(call.x), call.x.ndim
        number = size(call.x.shape) // self.channels
        if not number:
            raise ValueError(f"x: expected images, got none, of the shape {tuple(x.shape)}")
        # less one of its pixels, a constant channel is exactly zero
        first = channel_sums(call.x[(slice(1), slice(None), *[slice(1)] * (ndim - 2))])
        centred = call.x - per_channel(first, call.x)
        rest = channel_sums(centred) / number
        mean, centred = first + rest, centred - per_channel(rest, centred)
        most = xp.max(xp.abs(centred), axis=(0, *range(2, ndim)))
        unit = xp.where(most > 0, most, xp.ones_like(most))  # squares neither over- nor underflow
        squares = (centred / per_channel(unit, centred)) ** 2
        deviation = unit * xp.sqrt(channel_sums(squares) / number)
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

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(LOG_SCALE, self.log_scale)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"log_scale": bars[0]}

    def _regularised(self, shape: Shape, damp: float | Array, penalties: Sequence[Any] = ()) -> Map:
        if penalties:
            return super()._regularised(shape, damp, penalties)
        scale = namespace(self.log_scale).exp(self.log_scale)[:, None, None]
        inverse = regularised((scale, scale), damp, "log_scale")[:, 0, 0]
        return lambda y: y * per_channel(inverse, y)

    def transpose(self) -> "ActNorm":
        """Return the same scaling, without bias."""
        return ActNorm(self.log_scale, None, ndim=self.ndim)

    def within(self, gain: float) -> Self:
        return self.replace(log_scale=squashed(self.log_scale, math.log(gain)))
