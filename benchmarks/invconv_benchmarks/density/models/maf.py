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

from invconv.flows.affine import affine
from invconv_benchmarks.density.models.architecture import Architecture
from invconv_torch import ActNorm
from invconv_torch.flows.coupling import shift_and_scale

Tensor: TypeAlias = torch.Tensor

_SEEN = (3, 3, 3, 0)  # pixels left, right, above and below that three convolutions see


class MaskedConv2d(nn.Conv2d):  # type: ignore[misc]
    """A 3x3 convolution that sees the row above, the pixel to the left, and part of its own pixel.

    Its kernel has the two rows that are not all masked.

    Parameters
    ----------
    sees, seen : tensor of int, shape (C_out,), (C_in,)
        An output sees the inputs of its own pixel for which ``seen < sees``.
    """

    mask: Tensor

    def __init__(self, sees: Tensor, seen: Tensor) -> None:
        super().__init__(len(seen), len(sees), (2, 3))
        mask = torch.ones(2, 3, len(sees), len(seen), dtype=torch.bool)
        mask[1, 1] = seen < sees[:, None]
        mask[1, 2] = False
        self.register_buffer("mask", mask.permute(2, 3, 0, 1).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (B, C_out, H, W)."""
        return F.conv2d(x, self.masked_weight(), self.bias, padding=1)[:, :, :-1]

    def masked_weight(self) -> Tensor:
        """Return the kernel, zero where it is masked."""
        return self.weight * self.mask


class AutoregressiveAffine(nn.Module):  # type: ignore[misc]
    """Scale and shift each number of an image by what the ones before it say.

    Parameters
    ----------
    channels : int
    width : int
        Of the network, three masked convolutions.
    floor : float
        The least scale.
    backwards : bool
        Whether the last number comes first.
    """

    def __init__(self, channels: int, width: int, floor: float, backwards: bool) -> None:
        super().__init__()
        own = torch.arange(channels)
        hidden = torch.arange(width) * channels // width  # sees channels below its number
        last = MaskedConv2d(own.repeat(2) + 1, hidden)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.convs = nn.ModuleList(
            [MaskedConv2d(hidden, own), MaskedConv2d(hidden + 1, hidden), last]
        )
        self.floor = floor
        self.backwards = backwards

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C, H, W), and the log-determinants, shape (B,)."""
        x = self._turned(x)
        z, log_det = affine(x, *self.shift_and_scale(x))
        return self._turned(z), log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,).

        One pass a number, over the pixels that the network sees of it.
        """
        z = self._turned(z)
        x, log_det = F.pad(torch.zeros_like(z), _SEEN), z.new_zeros(len(z))
        inside = F.pad(z.new_ones(z.shape[2:]), _SEEN)
        weights = [conv.masked_weight() for conv in self.convs]
        for i, j in itertools.product(range(z.shape[2]), range(z.shape[3])):
            window = slice(i, i + 4), slice(j, j + 7)
            for c in range(z.shape[1]):
                shift, scale = self._at(x[:, :, *window], inside[window], weights)
                x = x.clone() if torch.is_grad_enabled() else x  # autograd needs the earlier values
                x[:, c, i + 3, j + 3] = z[:, c, i, j] / scale[:, c] - shift[:, c]
                log_det = log_det - scale[:, c].log()
        return self._turned(x[:, :, 3:, 3:-3]), log_det

    def shift_and_scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network says of each number of x, both of the shape of x."""
        *hidden, last = self.convs
        h = x
        for conv in hidden:
            h = torch.relu(conv(h))
        return shift_and_scale(last(h), x, self.floor)

    def _at(self, x: Tensor, inside: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the same, of shape (B, C), of the last row's middle pixel of a window.

        Parameters
        ----------
        x : tensor, shape (B, C, 4, 7)
        inside : tensor, shape (4, 7)
            1 for pixels of the image, 0 for what is outside, where the network sees zeros.
        weights : list of tensor
            The masked kernels.
        """
        h = x
        for conv, weight in zip(self.convs, weights, strict=True):
            h = F.conv2d(h, weight, conv.bias)
            inside = inside[1:, 1:-1]
            h = torch.relu(h) * inside if conv is not self.convs[-1] else h
        return shift_and_scale(h[:, :, 0, 0], x, self.floor)

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
