"""The layers that are exponentials of convolutions.

Public names of `invconv_torch`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import invconv as ic
from invconv_torch.layer import Layer, Sizes, sizes_of


class _ExponentialConv(Layer):
    """The exponential of a convolution, z = e^M x + b: invertible with every kernel, on every grid.

    M's kernel is a cross-correlation, as in `torch.nn.Conv2d`; log det = tr M. Nearly the identity
    at the start. What it takes: `invconv.ExponentialConv`.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Odd; it may be wider than the grid.
    padding : {"zeros", "circular"}
        What M sees beyond the border.
    dilation : int or tuple of int
    bias : bool
    max_gain : float, optional
        Of the inverse, for every value of the parameters; see `invconv.bounded`.
    device, dtype : optional

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import ExponentialConv2d
    >>> layer = ExponentialConv2d(3, kernel_size=3)
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes = 3,
        *,
        padding: str = "zeros",
        dilation: Sizes = 1,
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(
            ic.ExponentialConv.init,
            channels,
            sizes_of(self, kernel_size),
            self._ndim,
            padding=padding,
            dilation=dilation,
        )
        super().__init__(init, bias, max_gain, device, dtype)


class ExponentialConv1d(_ExponentialConv):  # noqa: D101 - inherited
    _ndim = 1


class ExponentialConv2d(_ExponentialConv):  # noqa: D101 - inherited
    _ndim = 2


class ExponentialConv3d(_ExponentialConv):  # noqa: D101 - inherited
    _ndim = 3
