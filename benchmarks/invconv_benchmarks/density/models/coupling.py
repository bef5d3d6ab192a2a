"""Affine couplings: half of the channels decide how the other half is scaled and shifted.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017; the form of
scale and shift is that of D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018:

    z_1 = x_1,    z_2 = (x_2 + shift(x_1)) scale(x_1),    log det = sum of log scale,

    scale = floor + (1 - floor) sigmoid(h + 2),

where the network begins with h = shift = 0. Glow's floor is 0; with it the inverse, which divides
by the scale, may explode where the network leaves what it was trained on.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import nn

Tensor: TypeAlias = torch.Tensor


def network(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Return the network of a coupling: 3x3, 1x1 and 3x3 convolutions, the last one zero."""
    last = nn.Conv2d(width, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
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

    Parameters
    ----------
    channels : int
        An even number.
    width : int
        Of the network.
    floor : float
        The least scale.
    swapped : bool
        Whether the second half decides, and the first one is changed.
    """

    def __init__(self, channels: int, width: int, floor: float, swapped: bool = False) -> None:
        super().__init__()
        self.net = network(channels // 2, width, channels)
        self.floor = floor
        self.swapped = swapped

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C, H, W), and the log-determinants, shape (B,)."""
        kept, changed = self._halves(x)
        shift, scale = shift_and_scale(self.net(kept), x, self.floor)
        z = self._joined(kept, (changed + shift) * scale)
        return z, scale.log().sum(dim=(1, 2, 3))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        kept, changed = self._halves(z)
        shift, scale = shift_and_scale(self.net(kept), z, self.floor)
        x = self._joined(kept, changed / scale - shift)
        return x, -scale.log().sum(dim=(1, 2, 3))

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, dim=1)
        return (second, first) if self.swapped else (first, second)

    def _joined(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat((changed, kept) if self.swapped else (kept, changed), dim=1)
