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

from invconv_benchmarks.density.models.architecture import Architecture
from invconv_benchmarks.density.models.coupling import AffineCoupling
from invconv_benchmarks.density.models.multiscale import Split, Squeeze
from invconv_torch import ActNorm, Conv1x1, EmergingConv2d, PeriodicConv2d


def mixing(architecture: Architecture, channels: int) -> nn.Module:
    """Return the layer that mixes channels; actnorm before it has the bias."""
    match architecture.mixing:
        case "emerging":
            size = architecture.kernel_size
            return EmergingConv2d(channels, size, bias=False, mixing="plain")
        case "periodic":
            return PeriodicConv2d(channels, architecture.kernel_size, bias=False)
        case parametrization:
            return Conv1x1(channels, parametrization, bias=False)


def layers(architecture: Architecture, shape: tuple[int, int, int]) -> dict[str, nn.Module]:
    """Return the layers by name, in the order in which an image (C, H, W) meets them."""
    channels, found = shape[0], {}
    for level in range(architecture.levels):
        found[f"level{level}_squeeze"] = Squeeze()
        channels *= 4
        for step in range(architecture.depth):
            at = f"level{level}_step{step}"
            found[f"{at}_actnorm"] = ActNorm(channels)
            found[f"{at}_mixing"] = mixing(architecture, channels)
            found[f"{at}_coupling"] = AffineCoupling(
                channels, architecture.width, architecture.scale_floor
            )
        if level < architecture.levels - 1:
            found[f"level{level}_split"] = Split(channels, architecture.scale_floor)
            channels //= 2
    return found
