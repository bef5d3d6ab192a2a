"""A masked autoregressive flow on images: a density in one pass, a sample in one pass a number.

G. Papamakarios, T. Pavlakou, I. Murray, Masked Autoregressive Flow for Density Estimation, NeurIPS
2017; the masks are those of PixelCNN (A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel
Recurrent Neural Networks, ICML 2016). Of the numbers x_1, x_2, ... of an image in the order of
rows, pixels and channels, a layer makes

    z_i = (x_i + shift_i) scale_i,    shift_i and scale_i functions of x_j, j < i.

The next layer takes the reverse order.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from invconv_benchmarks.density.architecture import Architecture
from invconv_benchmarks.density.coupling import shift_and_scale
from invconv_torch import ActNorm

Tensor: TypeAlias = torch.Tensor


class MaskedConv2d(nn.Conv2d):  # type: ignore[misc]
    """A 3x3 convolution that sees earlier pixels, and of the pixel itself earlier channels.

    Parameters
    ----------
    sees, seen : tensor of int, shape (C_out,), (C_in,)
        An output sees the inputs of its own pixel for which ``seen < sees``.
    """

    mask: Tensor

    def __init__(self, sees: Tensor, seen: Tensor) -> None:
        super().__init__(len(seen), len(sees), 3, padding=1)
        mask = torch.zeros(3, 3, len(sees), len(seen), dtype=torch.bool)
        mask[0] = mask[1, 0] = True
        mask[1, 1] = seen < sees[:, None]
        self.register_buffer("mask", mask.permute(2, 3, 0, 1).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (B, C_out, H, W)."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=1)


class AutoregressiveAffine(nn.Module):  # type: ignore[misc]
    """Scale and shift each number of an image by what the ones before it say.

    Parameters
    ----------
    channels : int
    width : int
        Of the network, three masked 3x3 convolutions.
    floor : float
        The least scale.
    backwards : bool
        Whether the last number comes first.
    """

    reach = 3  # pixels around one that the network sees

    def __init__(self, channels: int, width: int, floor: float, backwards: bool) -> None:
        super().__init__()
        own = torch.arange(channels)
        hidden = torch.arange(width) * channels // width  # sees channels below its number
        outputs = own.repeat(2)
        last = MaskedConv2d(outputs + 1, hidden)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(
            MaskedConv2d(hidden, own),
            nn.ReLU(),
            MaskedConv2d(hidden + 1, hidden),
            nn.ReLU(),
            last,
        )
        self.floor = floor
        self.backwards = backwards

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C, H, W), and the log-determinants, shape (B,)."""
        x = self._turned(x)
        shift, scale = self.shift_and_scale(x)
        return self._turned((x + shift) * scale), scale.log().sum(dim=(1, 2, 3))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,).

        One pass a number, over the pixels that the network sees of it.
        """
        z = self._turned(z)
        x, log_det = torch.zeros_like(z), z.new_zeros(len(z))
        for i, j in itertools.product(range(z.shape[2]), range(z.shape[3])):
            top, left = max(0, i - self.reach), max(0, j - self.reach)
            for c in range(z.shape[1]):
                seen = x[:, :, top : i + 1, left : j + self.reach + 1]
                shift, scale = (a[:, c, i - top, j - left] for a in self.shift_and_scale(seen))
                x = x.clone() if torch.is_grad_enabled() else x  # autograd needs the older ones
                x[:, c, i, j] = z[:, c, i, j] / scale - shift
                log_det = log_det - scale.log()
        return self._turned(x), log_det

    def shift_and_scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network says of each number of x, both of the shape of x."""
        return shift_and_scale(self.net(x), x, self.floor)

    def _turned(self, x: Tensor) -> Tensor:
        return x.flip((1, 2, 3)) if self.backwards else x


def layers(architecture: Architecture, shape: tuple[int, int, int]) -> dict[str, nn.Module]:
    """Return the layers by name, in the order in which an image (C, H, W) meets them."""
    found: dict[str, nn.Module] = {}
    for step in range(architecture.depth):
        found[f"step{step}_actnorm"] = ActNorm(shape[0])
        found[f"step{step}_autoregressive"] = AutoregressiveAffine(
            shape[0], architecture.width, architecture.scale_floor, backwards=step % 2 == 1
        )
    return found
