"""Between the levels of a flow: pixels become channels, and half of the channels are done.

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

    z = (x_2 - mean(x_1)) exp(-log_scale(x_1)), so that log N(x_2; mean, exp(log_scale)) is
    log N(z; 0, 1) plus the log-determinant, -sum of log_scale. Both begin at 0.

    Parameters
    ----------
    channels : int
        An even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prior = nn.Conv2d(channels // 2, channels, 3, padding=1)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return what stays and z, both of shape (B, C / 2, H, W), and the log-determinants."""
        kept, left = x.chunk(2, dim=1)
        mean, log_scale = self._prior(kept)
        return (kept, (left - mean) * torch.exp(-log_scale)), -log_scale.sum(dim=(1, 2, 3))

    def inverse(self, kept_and_z: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        kept, z = kept_and_z
        mean, log_scale = self._prior(kept)
        x = torch.cat((kept, z * torch.exp(log_scale) + mean), dim=1)
        return x, log_scale.sum(dim=(1, 2, 3))

    def _prior(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.prior(kept).to(kept.dtype).chunk(2, dim=1)
        return mean, log_scale
