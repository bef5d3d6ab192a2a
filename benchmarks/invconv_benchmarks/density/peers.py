"""Flows to compare with those of mixing layers: Real NVP, and a masked autoregressive flow.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017.
G. Papamakarios, T. Pavlakou, I. Murray, Masked Autoregressive Flow for Density Estimation, NeurIPS
2017; its masks are those of A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel Recurrent
Neural Networks, ICML 2016. Both are written here, of the layers of `invconv_torch.flows` where
those fit.
"""

import itertools
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invconv.flows.architecture import GlowArchitecture
from invconv.flows.density import affine, inverse_affine
from invconv_torch import ActNorm, Squeeze
from invconv_torch.flows import AffineCoupling, Split
from invconv_torch.flows.coupling import network, shift_and_scale

Layers = dict[str, nn.Module]  # by name, in the order in which an image passes through them

_SEEN = (3, 3, 3, 0)  # pixels left, right, above and below that three masked convolutions see


def real_nvp(a: GlowArchitecture) -> Layers:
    """Return a Real NVP of the size of a Glow: masks take turns, and nothing mixes channels.

        [[actnorm, coupling of a checkerboard] x depth/2, squeeze,
         [actnorm, coupling of halves of the channels] x depth/2, split] x levels

    The last level is without split. The authors have batch normalisation in place of actnorm, and
    checkerboards alone in the last level; so all latents are Glow's.
    """
    layers, boards, floor = Layers(), (a.depth + 1) // 2, a.scale_floor
    for level in range(a.levels):
        fine, coarse = a.channels(level) // 4, a.channels(level)
        for step in range(boards):
            at = f"level{level}_step{step}"
            layers[f"{at}_actnorm"] = ActNorm(fine)
            layers[f"{at}_coupling"] = Checkerboard(fine, a.width, floor, step % 2)
        layers[f"level{level}_squeeze"] = Squeeze()
        for step in range(boards, a.depth):
            at, swapped = f"level{level}_step{step}", (step - boards) % 2 == 1
            coupling = AffineCoupling(coarse, a.width, scale_floor=floor, swapped=swapped)
            layers |= {f"{at}_actnorm": ActNorm(coarse), f"{at}_coupling": coupling}
        if level < a.levels - 1:
            layers[f"level{level}_split"] = Split(coarse, scale_floor=floor)
    return layers


class Checkerboard(nn.Module):  # type: ignore[misc]
    """A coupling: every second pixel is scaled and shifted by a function of the others.

    Pixels (i, j) with i + j of the ``parity`` stay. ``floor`` is the least scale.
    """

    def __init__(self, channels: int, width: int, floor: float, parity: int) -> None:
        super().__init__()
        self.net = network(channels, width, 2 * channels)
        self.floor, self.parity = floor, parity

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C, H, W), and the log-determinants, shape (B,)."""
        return affine(x, *self._shift_and_scale(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        return inverse_affine(z, *self._shift_and_scale(z))

    def _shift_and_scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = (torch.arange(n, device=x.device) for n in x.shape[2:])
        stays = (rows[:, None] + columns) % 2 == self.parity
        shift, scale = shift_and_scale(self.net(x * stays), x, self.floor)
        return shift.masked_fill(stays, 0.0), scale.masked_fill(stays, 1.0)


def maf(a: GlowArchitecture) -> Layers:
    """Return a masked autoregressive flow of ``a.depth`` layers, each in the reverse order."""
    layers = Layers()
    for step in range(a.depth):
        sizes = a.shape[0], a.width, a.scale_floor
        layers[f"step{step}_actnorm"] = ActNorm(a.shape[0])
        layers[f"step{step}_autoregressive"] = Autoregressive(*sizes, backwards=step % 2 == 1)
    return layers


class MaskedConv2d(nn.Conv2d):  # type: ignore[misc]
    """A 3x3 convolution that sees the row above, the pixel to the left, and part of its own pixel.

    Of its own pixel, an output sees the inputs for which ``seen < sees``. The kernel has the two
    rows that are not all masked.
    """

    mask: Tensor

    def __init__(self, sees: Tensor, seen: Tensor) -> None:
        super().__init__(len(seen), len(sees), (2, 3))
        mask = torch.ones(len(sees), len(seen), 2, 3, dtype=torch.bool)
        mask[:, :, 1, 1] = seen < sees[:, None]
        mask[:, :, 1, 2] = False
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (B, C_out, H, W)."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=1)[:, :, :-1]


class Autoregressive(nn.Module):  # type: ignore[misc]
    """A layer that scales and shifts each number of an image by functions of the earlier ones.

        z_i = (x_i + shift_i) scale_i,    shift_i and scale_i functions of x_j, j < i

    The order is that of rows, pixels and channels, or with ``backwards`` its reverse. The network,
    three masked convolutions, has ``width`` channels inside; ``floor`` is the least scale.
    """

    def __init__(self, channels: int, width: int, floor: float, *, backwards: bool = False) -> None:
        super().__init__()
        own, hidden = torch.arange(channels), torch.arange(width) * channels // width
        ends = ((hidden, own), (hidden + 1, hidden), (own.repeat(2) + 1, hidden))
        self.convs = nn.ModuleList([MaskedConv2d(sees, seen) for sees, seen in ends])
        nn.init.zeros_(self.convs[-1].weight)
        nn.init.zeros_(self.convs[-1].bias)
        self.floor, self.backwards = floor, backwards

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C, H, W), and the log-determinants, shape (B,)."""
        h = x = self._turned(x)
        for conv in self.convs[:-1]:
            h = torch.relu(conv(h))
        z, log_det = affine(x, *shift_and_scale(self.convs[-1](h), x, self.floor))
        return self._turned(z), log_det

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,).

        One pass per number, over the pixels that the network sees for it.
        """
        z = self._turned(z)
        x, log_det = F.pad(torch.zeros_like(z), _SEEN), z.new_zeros(len(z))
        inside = F.pad(z.new_ones(z.shape[2:]), _SEEN)
        kernels = [(conv.weight * conv.mask, conv.bias) for conv in self.convs]
        for i, j in itertools.product(*map(range, z.shape[2:])):
            window = slice(i, i + 4), slice(j, j + 7)
            for c in range(z.shape[1]):
                h, edges = x[:, :, *window], inside[window]
                for kernel in kernels[:-1]:  # zeros outside of the image, as the forward has
                    edges = edges[1:, 1:-1]
                    h = torch.relu(F.conv2d(h, *kernel)) * edges
                shift, scale = shift_and_scale(F.conv2d(h, *kernels[-1])[:, :, 0, 0], z, self.floor)
                x[:, c, i + 3, j + 3] = z[:, c, i, j] / scale[:, c] - shift[:, c]
                log_det = log_det - scale[:, c].log()
        return self._turned(x[:, :, 3:, 3:-3]), log_det

    def _turned(self, x: Tensor) -> Tensor:
        return x.flip((1, 2, 3)) if self.backwards else x


PEERS: Mapping[str, Callable[[GlowArchitecture], Layers]] = {"real_nvp": real_nvp, "maf": maf}
