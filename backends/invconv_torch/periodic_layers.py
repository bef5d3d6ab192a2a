"""The layers that are solved frequency by frequency, and exponentials of convolutions."""

from functools import partial
from typing import Any

import invconv as ic
from invconv_torch.layer import Convolution, Sizes


class _PeriodicConv(Convolution):
    """A convolution with circular padding.

    Its kernel is a cross-correlation, as in `torch.nn.Conv2d`: flip a point-spread function. The
    equations: `invconv.PeriodicConv`.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Odd, even, or wider than the grid.
    dilation : int or tuple of int
    bias : bool
    max_gain, device, dtype : optional
        See `InvertibleModule`.

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
        init = partial(ic.PeriodicConv.init, dilation=dilation)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)


class _SymmetricConv(Convolution):
    """A convolution of an even kernel with an image that goes on beyond its border.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Of the whole kernel, odd; the parameter has (kernel_size + 1)/2 taps per axis. Along
        a periodic axis it may be even, and the parameter has all taps.
    boundary : {"symmetric", "mirror", "odd", "zero", "periodic"} or tuple of these, one per axis
        See `invconv.SymmetricConv`.
    bias : bool
    max_gain, device, dtype : optional
        See `InvertibleModule`.

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
        boundary: str | tuple[str, ...] = "symmetric",
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.SymmetricConv.init, boundary=boundary)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)

    def extra_repr(self) -> str:
        """Say channels, the size of the whole kernel, and settings."""
        taps = tuple(self.kernel.shape[2:])
        pairs = zip(taps, self._settings["boundary"], strict=True)
        whole = tuple(k if word == "periodic" else 2 * k - 1 for k, word in pairs)
        return str(super().extra_repr()).replace(f"kernel_size={taps}", f"kernel_size={whole}")


class _ExponentialConv(Convolution):
    """The exponential of a convolution: invertible with every kernel, on every grid.

        z = e^M x + b,    log det = tr M

    M's kernel is a cross-correlation, as in `torch.nn.Conv2d`. Nearly the identity at the start.
    What it takes: `invconv.ExponentialConv`.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Odd; it may be wider than the grid.
    padding : {"zeros", "circular"}
        What M sees beyond the border.
    dilation : int or tuple of int
    bias : bool
    max_gain, device, dtype : optional
        See `InvertibleModule`.

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
        init = partial(ic.ExponentialConv.init, padding=padding, dilation=dilation)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)


# fmt: off
class PeriodicConv1d(_PeriodicConv, ndim=1): ...  # noqa: D101
class PeriodicConv2d(_PeriodicConv, ndim=2): ...  # noqa: D101
class PeriodicConv3d(_PeriodicConv, ndim=3): ...  # noqa: D101
class SymmetricConv1d(_SymmetricConv, ndim=1): ...  # noqa: D101
class SymmetricConv2d(_SymmetricConv, ndim=2): ...  # noqa: D101
class SymmetricConv3d(_SymmetricConv, ndim=3): ...  # noqa: D101
class ExponentialConv1d(_ExponentialConv, ndim=1): ...  # noqa: D101
class ExponentialConv2d(_ExponentialConv, ndim=2): ...  # noqa: D101
class ExponentialConv3d(_ExponentialConv, ndim=3): ...  # noqa: D101
