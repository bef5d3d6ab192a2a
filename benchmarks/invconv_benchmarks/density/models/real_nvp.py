"""Real NVP: couplings with alternating masks, without a layer that mixes channels.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017. A level is

    [actnorm, coupling with a checkerboard] x depth/2, squeeze,
    [actnorm, coupling of halves of the channels] x depth/2, split

with actnorm in place of batch normalisation, which needs a batch to be evaluated. The last level
is like the others (the paper's is not squeezed), so that all models have the same latents.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import nn

from invconv.flows.affine import affine, inverse_affine
from invconv_benchmarks.density.models.architecture import Architecture
from invconv_torch import ActNorm, Squeeze
from invconv_torch.flows import AffineCoupling, Split
from invconv_torch.flows.coupling import network, shift_and_scale

Tensor: TypeAlias = torch.Tensor


class CheckerboardCoupling(nn.Module):  # type: ignore[misc]
    """Scale and shift every second pixel by what the others say.

    Parameters
    ----------
    channels : int
    grid : tuple of int
        Height and width.
    width : int
        Of the network.
    floor : float
        The least scale.
    parity : int
        0 or 1: the pixels (i, j) with i + j of this parity stay as they are.
    """

    kept: Tensor

    def __init__(
        self, channels: int, grid: tuple[int, int], width: int, floor: float, parity: int
    ) -> None:
        super().__init__()
        self.net = network(channels, width, 2 * channels)
        self.floor = floor
        rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
        kept = (rows[:, None] + columns) % 2 == parity
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C, H, W), and the log-determinants, shape (B,)."""
        found: tuple[Tensor, Tensor] = affine(x, *self._shift_and_scale(x))
        return found

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        found: tuple[Tensor, Tensor] = inverse_affine(z, *self._shift_and_scale(z))
        return found

    def _shift_and_scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return shift and scale, 0 and 1 at the pixels that stay."""
        shift, scale = shift_and_scale(self.net(x * self.kept), x, self.floor)
        return shift.masked_fill(self.kept, 0.0), scale.masked_fill(self.kept, 1.0)


def layers(architecture: Architecture, shape: tuple[int, int, int]) -> dict[str, nn.Module]:
    """Return the layers by name, in the order in which an image (C, H, W) meets them."""
    channels, height, width = shape
    floor, hidden = architecture.scale_floor, architecture.width
    checkerboards = (architecture.depth + 1) // 2
    found: dict[str, nn.Module] = {}
    for level in range(architecture.levels):
        for step in range(checkerboards):
            found[f"level{level}_step{step}_actnorm"] = ActNorm(channels)
            found[f"level{level}_step{step}_coupling"] = CheckerboardCoupling(
                channels, (height, width), hidden, floor, parity=step % 2
            )
        found[f"level{level}_squeeze"] = Squeeze()
        channels, height, width = 4 * channels, height // 2, width // 2
        for step in range(checkerboards, architecture.depth):
            found[f"level{level}_step{step}_actnorm"] = ActNorm(channels)
            found[f"level{level}_step{step}_coupling"] = AffineCoupling(
                channels,
                hidden,
                scale_floor=floor,
                swapped=(step - checkerboards) % 2 == 1,
            )
        if level < architecture.levels - 1:
            found[f"level{level}_split"] = Split(channels, scale_floor=floor)
            channels //= 2
    return found
