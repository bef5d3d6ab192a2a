"""The layers of autoregressive convolutions, with the arguments that PyTorch's users expect.

Each is initialised as in the paper, from PyTorch's random generator.
"""

from functools import partial
from typing import Any

import invconv as ic
from invconv.operators.base.fields import mixings, require_mixing
from invconv_torch.layer import Convolution, Sizes
from invconv_torch.module import Read
from invconv_torch.pointwise_layers import Conv1x1


class _AutoregressiveConv(Convolution):
    """A convolution that sees only pixels on one side of each pixel, zero outside the grid.

    Its kernel is a cross-correlation with direction -1, a convolution with +1; what that means for
    a point-spread function: `invconv.AutoregressiveConv`. In blocks, a long signal or a tall image
    goes through ``layer.operator()``, whose ``forward`` and ``inverse`` take ``before=``.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Taps along each axis, the pixel itself included; a raster of 2 has a kernel (2, 3, ...).
    dilation : int or tuple of int
    bias : bool
    mask : {"corner", "raster"}
        Which pixels it sees; `invconv.AutoregressiveConv` shows them, by mask and direction.
    direction : int or tuple of int
        +1 or -1, per axis for corners.
    channel_order : {"lower", "upper"}
        Which triangle the C x C matrix at the pixel itself is.
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import AutoregressiveConv2d
    >>> layer = AutoregressiveConv2d(3, kernel_size=2, mask="raster")
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes = 2,
        *,
        dilation: Sizes = 1,
        bias: bool = True,
        mask: str = "corner",
        direction: Sizes = 1,
        channel_order: str = "lower",
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.AutoregressiveConv.init, dilation=dilation, mask=mask)
        init = partial(init, direction=direction, channel_order=channel_order)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)


class _EmergingConv(Convolution):
    """Two autoregressive convolutions of opposite directions: the field of a standard one.

    Their directions are -1 and +1, as `invconv.AutoregressiveConv` shows them. The equations:
    `invconv.EmergingConv`.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Of the standard convolution with the same receptive field; odd.
    dilation : int or tuple of int
    bias : bool
        Added last.
    mask : {"corner", "raster"}
        Of both.
    mixing : str or None
        The parametrisation of a 1x1 convolution before the pair, as in the paper: "plain", "plu",
        "qr", ..., as `Conv1x1` has them.
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import EmergingConv2d
    >>> layer = EmergingConv2d(3, kernel_size=5, mixing="qr")
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
        mask: str = "corner",
        mixing: str | None = None,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.EmergingConv.init, dilation=dilation, mask=mask)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)
        self._chain: Any = None  # the two as one operator that was validated last,
        self._chain_kinds: list[Any] | None = None  # and of which kind the tensors were
        self.mixing = None
        if mixing is not None:
            require_mixing("mixing", mixing, mixings(ic.extend.Pointwise))
            self.mixing = Conv1x1(channels, mixing, bias=False, device=device, dtype=dtype)

    def _current(
        self, traced: bool, read: Read | None = None, *, within: bool = True
    ) -> ic.InvertibleConv:
        if self.mixing is None:
            return super()._current(traced, read, within=within)
        steps = self.mixing._current(traced, read), super()._current(traced, read, within=False)
        kinds = [self.mixing._kinds, self._kinds]
        if traced or kinds != self._chain_kinds:
            chain = ic.Chain(steps)
        if not traced:
            if kinds != self._chain_kinds:
                chain._prime()
                # without tensors, as the static parts of the steps are
                self._chain = chain._with({}, (self.mixing._static, self._static))
                self._chain_kinds = kinds
            chain = self._chain._with({}, steps)
        return chain if self._max_gain is None or not within else ic.bounded(chain, self._max_gain)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as at the start."""
        super().reset_parameters()
        if self.mixing is not None:
            self.mixing.reset_parameters()


# fmt: off
class AutoregressiveConv1d(_AutoregressiveConv, ndim=1): ...  # noqa: D101
class AutoregressiveConv2d(_AutoregressiveConv, ndim=2): ...  # noqa: D101
class AutoregressiveConv3d(_AutoregressiveConv, ndim=3): ...  # noqa: D101
class EmergingConv1d(_EmergingConv, ndim=1): ...  # noqa: D101
class EmergingConv2d(_EmergingConv, ndim=2): ...  # noqa: D101
class EmergingConv3d(_EmergingConv, ndim=3): ...  # noqa: D101
