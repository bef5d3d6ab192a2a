"""Affine couplings: half of the channels decide how the other half is scaled and shifted.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017; the form of
scale and shift is that of D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from invconv.arrays.settings import flag, positive_int
from invconv.files.glow import optional_context
from invconv.files.glow import scale_floor as checked_floor

Tensor: TypeAlias = torch.Tensor


def network(
    inputs: int, width: int, outputs: int, device: Any = None, dtype: Any = None
) -> nn.Sequential:
    """Return the network of a coupling: 3x3, 1x1 and 3x3 convolutions, the last one zero."""
    where = {"device": device, "dtype": dtype}
    last = nn.Conv2d(width, outputs, 3, padding=1, **where)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1, **where),
        nn.ReLU(),
        nn.Conv2d(width, width, 1, **where),
        nn.ReLU(),
        last,
    )


def shift_and_scale(h: Tensor, like: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Return shift and scale from a network's output (B, 2 C, H, W).

    They have the dtype of ``like``: under autocast the network may run in half precision, but the
    map and its log-determinant are computed from the same full numbers.
    """
    shift, h = h.to(like.dtype).chunk(2, dim=1)
    return shift, floor + (1 - floor) * torch.sigmoid(h + 2)


class AffineCoupling(nn.Module):  # type: ignore[misc]
    """Scale and shift one half of the channels by numbers that a network makes of the other half.

        z_1 = x_1,    z_2 = (x_2 + shift(x_1)) scale(x_1),    log det = sum of log scale,

        scale = floor + (1 - floor) sigmoid(h(x_1) + 2),

    where the network begins with h = shift = 0. Glow's floor is 0; with it the inverse, which
    divides by the scale, may explode where the network leaves what it was trained on.

    Parameters
    ----------
    channels : int
        An even number.
    width : int
        Channels inside the network.
    scale_floor : float
        The least scale, at least 0 and below 1.
    context : int, optional
        Channels of a context, which the network sees too.
    swapped : bool
        Whether the second half decides, and the first one is changed.
    device, dtype : optional

    Examples
    --------
    >>> import torch
    >>> from invconv_torch.flows import AffineCoupling
    >>> layer = AffineCoupling(4, width=8, context=2)
    >>> x, context = torch.randn(5, 4, 8, 8), torch.randn(5, 2)
    >>> z, log_det = layer(x, context)
    >>> torch.allclose(layer.inverse(z, context)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        scale_floor: float = 0.0,
        context: int | None = None,
        swapped: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        half = even_half(channels)
        self.channels = channels
        self.floor = checked_floor(scale_floor)
        self.context = optional_context(context)
        self.swapped = flag("swapped", swapped)
        inputs = half + (self.context or 0)
        self.net = network(inputs, positive_int("width", width), channels, device, dtype)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C, H, W), and the log-determinants, shape (B,).

        Parameters
        ----------
        x : tensor, shape (B, C, H, W)
        context : tensor, shape (B, K) or (B, K, H', W'), optional
            What the map is conditioned on: the same at all pixels, or images, which are averaged
            over blocks to the grid of x.
        """
        kept, changed = self._halves(x)
        shift, scale = shift_and_scale(self.net(self._seen(kept, context)), x, self.floor)
        z = self._joined(kept, (changed + shift) * scale)
        return z, scale.log().sum(dim=(1, 2, 3))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        kept, changed = self._halves(z)
        shift, scale = shift_and_scale(self.net(self._seen(kept, context)), z, self.floor)
        x = self._joined(kept, changed / scale - shift)
        return x, -scale.log().sum(dim=(1, 2, 3))

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, dim=1)
        return (second, first) if self.swapped else (first, second)

    def _joined(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat((changed, kept) if self.swapped else (kept, changed), dim=1)

    def _seen(self, kept: Tensor, context: Tensor | None) -> Tensor:
        """Return what the network sees."""
        if self.context is None and context is None:
            return kept
        return torch.cat((kept, _on_grid(context, kept, self.context)), dim=1)

    def extra_repr(self) -> str:
        """Say the settings."""
        return f"scale_floor={self.floor}, context={self.context}, swapped={self.swapped}"


def even_half(channels: int) -> int:
    """Return half of an even number of channels, or raise."""
    if positive_int("channels", channels) % 2:
        raise ValueError(f"channels: expected an even number, of two halves, got {channels}")
    return channels // 2


def _on_grid(context: Tensor | None, x: Tensor, channels: int | None) -> Tensor:
    """Return a context as images on the grid of x.

    Raises
    ------
    ValueError
        If it has another shape or dtype than is expected, or there is none.
    """
    batch, (height, width) = len(x), x.shape[2:]
    shape = None if context is None else tuple(context.shape)
    fits = (
        context is not None
        and shape in ((batch, channels), (batch, channels, *context.shape[2:4]))
        and all(n % m == 0 for n, m in zip(context.shape[2:], (height, width), strict=False))
    )
    if not fits or context is None or context.dtype != x.dtype:
        expected = f"{x.dtype} of shape ({batch}, {channels})"
        got = "none" if context is None else f"{context.dtype} of shape {shape}"
        raise ValueError(
            f"context: expected {'none' if channels is None else expected} or images on a "
            f"multiple of the grid {height} x {width}, got {got}"
        )
    if context.ndim == 2:
        return context[:, :, None, None].expand(-1, -1, height, width)
    return functional.adaptive_avg_pool2d(context, (height, width))
