"""Layers between the levels of a flow: a squeeze, and a split that outputs half of the channels.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017, section 3.6.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import nn

from invconv import squeeze, unsqueeze

Tensor: TypeAlias = torch.Tensor


class Squeeze(nn.Module):  # type: ignore[misc]
    """Every 2 x 2 pixels become four times as many channels."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, 4 C, H / 2, W / 2), and zeros, shape (B,)."""
        return squeeze(x), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and zeros, shape (B,)."""
        return unsqueeze(z), z.new_zeros(len(z))


class Split(nn.Module):  # type: ignore[misc]
    """The second half of the channels leaves, in units of a learned normal distribution.

    z = (x_2 - mean(x_1)) scale(x_1), so that log N(x_2; mean, 1 / scale) is log N(z; 0, 1) plus
    the log-determinant, sum of log scale, where

        scale = floor + (1 - floor) exp(-h)

    begins at 1, and mean at 0. Glow's floor is 0: samples, which are divided by it, may explode.

    Parameters
    ----------
    channels : int
        An even number.
    floor : float
        The least scale.
    """

    def __init__(self, channels: int, floor: float) -> None:
        super().__init__()
        self.prior = nn.Conv2d(channels // 2, channels, 3, padding=1)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)
        self.floor = floor

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return what stays and z, both of shape (B, C / 2, H, W), and the log-determinants."""
        kept, left = x.chunk(2, dim=1)
        mean, scale = self._mean_and_scale(kept)
        return (kept, (left - mean) * scale), scale.log().sum(dim=(1, 2, 3))

    def inverse(self, kept_and_z: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        kept, z = kept_and_z
        mean, scale = self._mean_and_scale(kept)
        x = torch.cat((kept, z / scale + mean), dim=1)
        return x, -scale.log().sum(dim=(1, 2, 3))

    def _mean_and_scale(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, h = self.prior(kept).to(kept.dtype).chunk(2, dim=1)
        return mean, self.floor + (1 - self.floor) * torch.exp(-h)
