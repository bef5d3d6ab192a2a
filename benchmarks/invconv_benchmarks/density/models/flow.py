"""The flow of the paper: Glow, with any mixing layer between its couplings.

    squeeze, [actnorm, mixing, affine coupling] x depth, split;  and again, a level deeper

D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018; E. Hoogeboom, R. van den Berg, M. Welling, Emerging
Convolutions for Generative Normalizing Flows, ICML 2019.

Where the code of the paper's authors (github.com/ehoogeboom/emerging) does something else:

- Priors: theirs of the last level is learned, too, for CIFAR-10 and ImageNet, and for galaxies none
  is; here those of splits are, and that of the last level is N(0, 1).
- The couplings' networks: theirs have actnorm after both hidden convolutions, a channel that marks
  the image's edges, and learned factors after the last convolution; here they are three plain
  convolutions.
- The second decay of their Adamax depends on the steps of an epoch; here it is PyTorch's, 0.999.
- They report the parameters as they are at the best test loss; here Polyak's average at the end.
- Galaxies: they move 64 x 64 pixels by parts of a pixel and mirror the edges; here 32 x 32 are
  moved by whole pixels, and the edges are repeated.
"""

from __future__ import annotations

from torch import nn

from invconv_benchmarks.density.models.architecture import EMERGING, Architecture
from invconv_benchmarks.density.models.coupling import AffineCoupling
from invconv_benchmarks.density.models.multiscale import Split, Squeeze
from invconv_torch import (
    ActNorm,
    Conv1x1,
    EmergingConv2d,
    ExponentialConv2d,
    PeriodicConv2d,
    SymmetricConv2d,
)

_CONVOLUTIONS = {
    "periodic": PeriodicConv2d,
    "symmetric": SymmetricConv2d,
    "exponential": ExponentialConv2d,
}


def mixing(architecture: Architecture, channels: int) -> dict[str, nn.Module]:
    """Return the layers that mix channels, by the ends of their names; actnorm has the bias."""
    name, size = architecture.mixing, architecture.kernel_size
    if name in EMERGING:
        return {"mixing": EmergingConv2d(channels, size, bias=False, mixing=EMERGING[name])}
    if name not in _CONVOLUTIONS:
        return {"mixing": Conv1x1(channels, name, bias=False)}
    first = {"conv1x1": Conv1x1(channels, bias=False)} if name == "exponential" else {}
    return {**first, "mixing": _CONVOLUTIONS[name](channels, size, bias=False)}


def layers(architecture: Architecture, shape: tuple[int, int, int]) -> dict[str, nn.Module]:
    """Return the layers by name, in the order in which an image (C, H, W) meets them."""
    channels = shape[0]
    found: dict[str, nn.Module] = {}
    for level in range(architecture.levels):
        found[f"level{level}_squeeze"] = Squeeze()
        channels *= 4
        for step in range(architecture.depth):
            at = f"level{level}_step{step}"
            found[f"{at}_actnorm"] = ActNorm(channels)
            found |= {f"{at}_{n}": part for n, part in mixing(architecture, channels).items()}
            found[f"{at}_coupling"] = AffineCoupling(
                channels, architecture.width, architecture.scale_floor
            )
        if level < architecture.levels - 1:
            found[f"level{level}_split"] = Split(channels, architecture.scale_floor)
            channels //= 2
    return found
