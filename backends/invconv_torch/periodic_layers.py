"""The layers that are solved frequency by frequency, and exponentials of convolutions.

Public names of `invconv_torch`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import invconv as ic
from invconv_torch.layer import Layer, Sizes, sizes_of


class _PeriodicConv(Layer):
    """A convolution with circular padding.

    Its kernel is a cross-correlation, as in `torch.nn.Conv2d`: flip a point-spread function.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Odd, even, or wider than the grid.
    dilation : int or tuple of int
    bias : bool
    max_gain : float, optional
        Of the inverse, for every value of the parameters; see `invconv.bounded`.
    device, dtype : optional

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import PeriodicConv2d
    >>> layer = PeriodicConv2d(3, kernel_size=3)
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
        dilation: Sizes = 1,
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        size = sizes_of(self, kernel_size)
        init = partial(ic.PeriodicConv.init, channels, size, self._ndim, dilation=dilation)
        super().__init__(init, bias, max_gain, device, dtype)


class PeriodicConv1d(_PeriodicConv):  # noqa: D101 - inherited
    _ndim = 1


class PeriodicConv2d(_PeriodicConv):  # noqa: D101 - inherited
    _ndim = 2


class PeriodicConv3d(_PeriodicConv):  # noqa: D101 - inherited
    _ndim = 3


class _SymmetricConv(Layer):
    """A convolution of an even kernel with an image that is mirrored at its border.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Of the whole kernel, odd; the parameter has (kernel_size + 1)/2 taps an axis.
    bias : bool
    max_gain : float, optional
        Of the inverse, for every value of the parameters; see `invconv.bounded`.
    device, dtype : optional

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import SymmetricConv2d
    >>> layer = SymmetricConv2d(3, kernel_size=3)
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
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        size = sizes_of(self, kernel_size)
        init = partial(ic.SymmetricConv.init, channels, size, self._ndim)
        super().__init__(init, bias, max_gain, device, dtype)

    def extra_repr(self) -> str:
        """Say channels, the size of the whole kernel, and settings."""
        taps = tuple(self.kernel.shape[2:])
        whole = tuple(2 * h - 1 for h in taps)
        said: str = super().extra_repr().replace(f"kernel_size={taps}", f"kernel_size={whole}")
        return said


class SymmetricConv1d(_SymmetricConv):  # noqa: D101 - inherited
    _ndim = 1


class SymmetricConv2d(_SymmetricConv):  # noqa: D101 - inherited
    _ndim = 2


class SymmetricConv3d(_SymmetricConv):  # noqa: D101 - inherited
    _ndim = 3


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
