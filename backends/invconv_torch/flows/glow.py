"""The flow of the paper: Glow, with any invertible layer between its couplings.

D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018; E. Hoogeboom, R. van den Berg, M. Welling, Emerging
Convolutions for Generative Normalizing Flows, ICML 2019.

Differences from the code of the paper's authors (github.com/ehoogeboom/emerging):

- Scales: the authors' scale of a coupling or split may come near 0, by which samples are divided.
  Here it is 0.5 at least, unless ``scale_floor=0`` is passed.
- Priors: the authors also learn the prior of the last level for CIFAR-10 and ImageNet, and learn no
  prior for galaxies. Here the priors of splits are learned, and the prior of the last level is
  N(0, 1).
- The couplings' networks: the authors' have actnorm after both hidden convolutions, a channel that
  marks the image's edges, and learned factors after the last convolution. Here a network is three
  plain convolutions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from torch import nn

from invconv.extend import Pointwise
from invconv.flows.architecture import (
    GlowArchitecture,
    before_emerging,
    mixing_steps,
    mixing_words,
    require_arrays,
)
from invconv.operators.base.fields import mixings, require_mixing
from invconv_torch.flows.coupling import AffineCoupling, Split
from invconv_torch.flows.multiscale import Multiscale
from invconv_torch.layer import Convolution, Layer
from invconv_torch.layers import EmergingConv2d
from invconv_torch.pointwise_layers import ActNorm, Conv1x1, Squeeze

Mixing: TypeAlias = Callable[[int], nn.Module]


class Glow(Multiscale):
    """A multi-scale flow of images in [0, 1).

        [squeeze, [actnorm, mixing, affine coupling] x depth, split] x levels,

    the last level without split. Call `initialize` with images before the first training step.

    Parameters
    ----------
    shape : tuple of int
        (C, H, W) of an image; H and W are multiples of 2^levels.
    levels : int
        Number of times that the image is halved.
    depth : int
        Number of flow steps in each level.
    width : int
        Channels inside the couplings' networks.
    mixing : str or callable
        The layer between couplings. A 1x1 convolution: "plain", "plu", "qr", "orthogonal",
        "circulant" or "householder"; an emerging convolution after a plain one, "emerging", or
        after another, "emerging_plu", "emerging_qr", ...; "periodic" or "symmetric"; "exponential"
        after a plain 1x1. The word of a class of your own, ``class Own(InvertibleConv,
        mixing="own")`` with an ``init(channels, kernel_size, *, rng)``, or of an
        `invconv.extend.Pointwise`. Or a function that takes the number of channels and returns a
        layer.
    squeeze : {"pixels", "haar", "dct"}
        The basis in which 2 x 2 pixels become channels.
    kernel_size : int
        Taps per axis of a mixing convolution, odd.
    scale_floor : float
        The least scale of a coupling or split, by which samples are divided; 0, as in the paper,
        is no limit, and samples may be infinite (benchmarks/README.md has numbers).
    context : int, optional
        Channels of a context on which the couplings are conditioned.
    reversible : bool
        Store fewer activations for the gradient, as in `Multiscale`.
    device, dtype : optional

    Attributes
    ----------
    architecture : invconv.flows.architecture.GlowArchitecture

    Examples
    --------
    >>> import torch
    >>> from invconv_torch.flows import Glow
    >>> flow = Glow((3, 8, 8), levels=2, depth=2, width=8, mixing="emerging")
    >>> images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8)
    >>> flow.initialize(flow.dequantize(images)[0])
    >>> flow.bits_per_dim(images).mean().backward()
    >>> flow.prepare().sample(4, temperature=0.7).shape
    torch.Size([4, 3, 8, 8])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int = 3,
        depth: int = 32,
        width: int = 512,
        *,
        mixing: str | Mixing = "emerging",
        squeeze: str = "pixels",
        kernel_size: int = 3,
        scale_floor: float = 0.5,
        context: int | None = None,
        reversible: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if not callable(mixing):
            require_mixing("mixing", mixing, mixing_words())
        named = None if callable(mixing) else mixing
        sizes, last = (shape, levels, depth, width), (kernel_size, context)
        architecture = GlowArchitecture(*sizes, named, squeeze, scale_floor, *last)
        where = {"device": device, "dtype": dtype}
        make = mixing if callable(mixing) else partial(mixing_layer, mixing, kernel_size, **where)
        layers = _layers(architecture, make, where)
        super().__init__(architecture.shape, layers, reversible=reversible)
        self.architecture = architecture
        if named is not None:
            state = {n.removeprefix("layers."): t for n, t in self.state_dict().items()}
            numbers = {n: t for n, t in state.items() if not n.endswith(".initialized")}
            require_arrays(architecture, {name: tuple(t.shape) for name, t in numbers.items()})


def _layers(
    architecture: GlowArchitecture, mixing: Mixing, where: dict[str, Any]
) -> dict[str, nn.Module]:
    """Return the layers by name, in the order in which an image passes through them."""
    floor, layers = architecture.scale_floor, {}
    steps = mixing_steps(architecture.mixing) if architecture.mixing else {}
    for level in range(architecture.levels):
        channels = architecture.channels(level)
        layers[f"level{level}_squeeze"] = Squeeze(basis=architecture.squeeze)
        for step in range(architecture.depth):
            at = f"level{level}_step{step}"
            layers[f"{at}_actnorm"] = ActNorm(channels, **where)
            if "conv1x1." in steps:
                layers[f"{at}_conv1x1"] = Conv1x1(channels, bias=False, **where)
            layers[f"{at}_mixing"] = mixing(channels)
            design = {"scale_floor": floor, "context": architecture.context, **where}
            layers[f"{at}_coupling"] = AffineCoupling(channels, architecture.width, **design)
        if level < architecture.levels - 1:
            layers[f"level{level}_split"] = Split(channels, scale_floor=floor, **where)
    return layers


def mixing_layer(
    name: str, size: int, channels: int, device: Any = None, dtype: Any = None
) -> nn.Module:
    """Return the layer between couplings, without a bias: the actnorm before it has one."""
    where = {"bias": False, "device": device, "dtype": dtype}
    if before := before_emerging(name):
        return EmergingConv2d(channels, size, mixing=before, **where)
    cls = mixings()[name]
    if issubclass(cls, Pointwise):
        return Conv1x1(channels, name, **where)
    if named := Convolution.named.get(f"{cls.__name__}2d"):
        return named(channels, size, **where)
    return Layer(partial(cls.init, channels, size), False, None, device, dtype)
