"""The layers of one matrix at every pixel: 1x1 convolutions, and actnorm.

Public names of `invconv_torch`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import invconv as ic
from invconv.arrays.settings import choice
from invconv_torch.layer import Layer

CONV1X1: dict[str, Callable[..., ic.InvertibleConv]] = {
    "plain": ic.Conv1x1.init,
    "plu": ic.PLUConv1x1.init,
    "qr": ic.QRConv1x1.init,
    "orthogonal": ic.OrthogonalConv1x1.init,
    "circulant": ic.CirculantConv1x1.init,
}


class Conv1x1(Layer):
    """One C x C matrix at every pixel, of any number of spatial axes.

    Parameters
    ----------
    channels : int
    parametrization : {"plain", "plu", "qr", "orthogonal", "circulant"}
        The matrix itself, or its factors, whose determinant costs little; or a rotation.
    bias : bool
    max_gain : float, optional
        Of the inverse, for every value of the parameters; see `invconv.bounded`.
    device, dtype : optional

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import Conv1x1
    >>> layer = Conv1x1(3, "qr")
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        parametrization: str = "plain",
        *,
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        choice("parametrization", parametrization, tuple(CONV1X1))
        super().__init__(partial(CONV1X1[parametrization], channels), bias, max_gain, device, dtype)


class ActNorm(Layer):
    """A scale and a shift per channel; the identity at the start.

    Parameters
    ----------
    channels : int
    bias : bool
    max_gain : float, optional
        Of the inverse, for every value of the parameters; see `invconv.bounded`.
    device, dtype : optional

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import ActNorm
    >>> layer = ActNorm(3)
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.equal(z, x), log_det.tolist()
    (True, [0.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        channels: int,
        *,
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(partial(ic.ActNorm.init, channels), bias, max_gain, device, dtype)
