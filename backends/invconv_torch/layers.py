"""The layers of convolutions, with the arguments that PyTorch's users expect.

Each is initialised as in the paper, from PyTorch's random generator.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

import invconv as ic
from invconv.arrays.settings import choice
from invconv.flows.architecture import POINTWISE
from invconv_torch.layer import Convolution
from invconv_torch.parameters import Read
from invconv_torch.pointwise_layers import Conv1x1

Tensor: TypeAlias = torch.Tensor


class _AutoregressiveConv(Convolution, of=ic.AutoregressiveConv):
    """A convolution that sees only pixels on one side of each pixel, zero outside the grid.

    Its kernel is a cross-correlation with direction -1, a convolution with +1; what that means for
    a point-spread function: `invconv.AutoregressiveConv`.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Taps along each axis, the pixel itself included; a raster of 2 has a kernel (2, 3, ...).
    dilation : int or tuple of int
    bias : bool
    mask : {"corner", "raster"}
        Which pixels it sees; `invconv.AutoregressiveConv` says what they are.
    direction : int or tuple of int
        +1 or -1, per axis for corners.
    channel_order : {"lower", "upper"}
        Which triangle the C x C matrix at the pixel itself is.
    """


class _EmergingConv(Convolution, of=ic.EmergingConv):
    """Two autoregressive convolutions of opposite directions: the field of a standard one.

    The first one's kernel is a cross-correlation, as in `torch.nn.Conv2d`, the second one's a
    convolution.

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
    mixing : {"qr", "plu", "plain", "orthogonal", "circulant"} or None
        The parametrisation of a 1x1 convolution before the pair, as in the paper.
    """

    def __init__(self, *sizes: Any, mixing: str | None = None, **settings: Any) -> None:
        super().__init__(*sizes, **settings)
        self._chain: Any = None  # the two as one operator that was validated last,
        self._chain_kinds: list[Any] | None = None  # and of which kind the tensors were
        self.mixing = None
        if mixing is not None:
            choice("mixing", mixing, POINTWISE)
            where = {name: settings[name] for name in settings.keys() & {"device", "dtype"}}
            self.mixing = Conv1x1(len(self.first.kernel), mixing, bias=False, **where)

    def _unbounded(self, traced: bool, read: Read | None = None) -> ic.InvertibleConv:
        pair = super()._unbounded(traced, read)
        if self.mixing is None:
            return pair
        steps = self.mixing._unbounded(traced, read), pair
        kinds = [self.mixing._kinds, self._kinds]
        if traced or kinds != self._chain_kinds:
            chain = ic.Chain(steps)
            if traced:
                return chain
            chain._prime()
            # without tensors, as the static parts of the steps are
            self._chain = chain._with({}, (self.mixing._static, self._static))
            self._chain_kinds = kinds
        whole: ic.InvertibleConv = self._chain._with({}, steps)
        return whole

    def _collect(self, found: list[Tensor]) -> None:
        if self.mixing is not None:
            self.mixing._collect(found)
        super()._collect(found)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as at the start."""
        super().reset_parameters()
        if self.mixing is not None:
            self.mixing.reset_parameters()


class _PeriodicConv(Convolution, of=ic.PeriodicConv):
    """A convolution with circular padding.

    Its kernel is a cross-correlation, as in `torch.nn.Conv2d`: flip a point-spread function.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Odd, even, or wider than the grid.
    dilation : int or tuple of int
    bias : bool
    """


class _SymmetricConv(Convolution, of=ic.SymmetricConv):
    """A convolution of an even kernel with an image that is mirrored at its border.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Of the whole kernel, odd; the parameter has (kernel_size + 1)/2 taps an axis.
    bias : bool
    """

    def extra_repr(self) -> str:
        """Say channels, the size of the whole kernel, and settings."""
        taps = tuple(self.kernel.shape[2:])
        whole = tuple(2 * h - 1 for h in taps)
        said: str = super().extra_repr().replace(f"kernel_size={taps}", f"kernel_size={whole}")
        return said


class _ExponentialConv(Convolution, of=ic.ExponentialConv):
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
    """


# fmt: off
class AutoregressiveConv1d(_AutoregressiveConv, ndim=1): ...  # noqa: D101
class AutoregressiveConv2d(_AutoregressiveConv, ndim=2): ...  # noqa: D101
class AutoregressiveConv3d(_AutoregressiveConv, ndim=3): ...  # noqa: D101
class EmergingConv1d(_EmergingConv, ndim=1): ...  # noqa: D101
class EmergingConv2d(_EmergingConv, ndim=2): ...  # noqa: D101
class EmergingConv3d(_EmergingConv, ndim=3): ...  # noqa: D101
class PeriodicConv1d(_PeriodicConv, ndim=1): ...  # noqa: D101
class PeriodicConv2d(_PeriodicConv, ndim=2): ...  # noqa: D101
class PeriodicConv3d(_PeriodicConv, ndim=3): ...  # noqa: D101
class SymmetricConv1d(_SymmetricConv, ndim=1): ...  # noqa: D101
class SymmetricConv2d(_SymmetricConv, ndim=2): ...  # noqa: D101
class SymmetricConv3d(_SymmetricConv, ndim=3): ...  # noqa: D101
class ExponentialConv1d(_ExponentialConv, ndim=1): ...  # noqa: D101
class ExponentialConv2d(_ExponentialConv, ndim=2): ...  # noqa: D101
class ExponentialConv3d(_ExponentialConv, ndim=3): ...  # noqa: D101
