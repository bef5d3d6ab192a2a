"""The flow of the paper: Glow, with any invertible layer between its couplings.

D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018; E. Hoogeboom, R. van den Berg, M. Welling, Emerging
Convolutions for Generative Normalizing Flows, ICML 2019.

Differences from the code of the paper's authors (github.com/ehoogeboom/emerging):

- Scales: samples are divided by the scales of couplings and splits. The authors' may come near 0;
  here they are at least 0.5, unless ``scale_floor=0`` is passed.
- Priors: the authors also learn the prior of the last level for CIFAR-10 and ImageNet, and learn no
  prior for galaxies. Here the priors of splits are learned, and the prior of the last level is
  N(0, 1).
- The couplings' networks: the authors' have actnorm after both hidden convolutions, a channel that
  marks the image's edges, and learned factors after the last convolution. Here a network is three
  plain convolutions.
"""

import os
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import invconv as ic
from invconv.extend import Pointwise
from invconv.files.saving import FLOWS, Flows, StoredFlow, load_as
from invconv.flows import architecture as designs
from invconv.flows.architecture import GlowArchitecture
from invconv.operators.base.fields import mixings, require_mixing
from invconv_torch.flows.coupling import AffineCoupling, Split
from invconv_torch.flows.multiscale import Multiscale
from invconv_torch.layers import Convolution, EmergingConv2d
from invconv_torch.module import InvertibleModule
from invconv_torch.native.host import require_whole
from invconv_torch.pointwise_layers import ActNorm, Conv1x1, Layer, Squeeze

Mixing: TypeAlias = Callable[[int], nn.Module]

_PREFIX, _FLAG = "layers.", ".initialized"  # of a Glow's names in PyTorch; of actnorms' buffers
_WHOLE = (
    "load get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)), of "
    "torch.distributed.checkpoint.state_dict, into a Glow that is not shared out, and save that"
)


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
        The least scale of a coupling or split. Samples are divided by scales: with 0, as in the
        paper, they may be infinite (benchmarks/README.md has numbers).
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
            require_mixing("mixing", mixing, designs.mixing_words())
        named = None if callable(mixing) else mixing
        sizes, last = (shape, levels, depth, width), (kernel_size, context)
        architecture = GlowArchitecture(*sizes, named, squeeze, scale_floor, *last)
        where = {"device": device, "dtype": dtype}
        make = mixing if callable(mixing) else partial(mixing_layer, mixing, kernel_size, **where)
        layers = _layers(architecture, make, where)
        super().__init__(architecture.shape, layers, reversible=reversible)
        self.architecture = architecture
        if named is not None:
            arrays = _arrays(self.state_dict())
            designs.require_arrays(
                architecture, {name: tuple(t.shape) for name, t in arrays.items()}
            )


def _layers(
    architecture: GlowArchitecture, mixing: Mixing, where: dict[str, Any]
) -> dict[str, nn.Module]:
    """Return the layers by name, in the order in which an image passes through them."""
    floor, layers = architecture.scale_floor, {}
    steps = designs.mixing_steps(architecture.mixing) if architecture.mixing else {}
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


def mixing_layer(name: str, size: int, channels: int, **where: Any) -> nn.Module:
    """Return the layer between couplings, without a bias: the actnorm before it has one."""
    if before := designs.mixing_words()[name]:
        return EmergingConv2d(channels, kernel_size=size, mixing=before, bias=False, **where)
    cls = mixings()[name]
    if issubclass(cls, Pointwise):
        return Conv1x1(channels, name, bias=False, **where)
    if named := Convolution.named.get(f"{cls.__name__}2d"):
        return named(channels, kernel_size=size, bias=False, **where)
    return Layer(partial(cls.init, channels, size), False, None, **where)


def _arrays(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the arrays of a Glow's state by their names in files."""
    named = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in named.items() if not name.endswith(_FLAG)}


def _contents(flow: Glow) -> StoredFlow:
    """Return the contents of a flow's file, or raise if no file describes the flow."""
    state = flow.state_dict()
    require_whole("model", state.values(), _WHOLE)
    if flow.architecture.mixing is not None:  # else the writer refuses it
        with torch.random.fork_rng(devices=[]):
            own = Glow(**flow.architecture.to_dict(), device="meta")
        lists = [[f"{name}: {layer}" for name, layer in one.layers.items()] for one in (own, flow)]
        for expected, got in zip_longest(*lists, fillvalue="no layer"):
            if expected != got:
                raise ValueError(
                    f"model: cannot be saved, since no file describes it: expected {expected}, got "
                    f"{got}; make a Glow with the settings that you want"
                )
    return StoredFlow(flow.architecture, _arrays(state), flow.initialized)


def _build(stored: StoredFlow, like: Tensor) -> Glow:
    settings = stored.architecture.to_dict()
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        flow = Glow(**settings, device=like.device, dtype=like.dtype)
    own = flow.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, values in stored.arrays.items():
            own[_PREFIX + name].copy_(values)
        for name, tensor in own.items():
            if name.endswith(_FLAG):
                tensor.fill_(stored.initialized)
    return flow


FLOWS["torch"] = Flows(Glow, _contents, _build)


def load(
    path: str | os.PathLike[str], *, device: Any = None, dtype: Any = None
) -> Glow | InvertibleModule:
    """Read a flow or a layer that `invconv.save` wrote, from any library.

    Everything is checked before it is used, and no code is run from a file.

    Parameters
    ----------
    path : str or path-like
    device : optional
        PyTorch's default unless given.
    dtype : torch.dtype, optional
        The dtype of the file unless given.

    Returns
    -------
    Glow or InvertibleModule
        In train mode, as new modules are.

    Raises
    ------
    InvalidFileError, ValueError, OSError
        As `invconv.load`.

    Examples
    --------
    >>> import tempfile, torch, invconv_torch
    >>> layer = invconv_torch.EmergingConv2d(3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     invconv_torch.save(layer, f"{folder}/layer.safetensors")
    ...     same = invconv_torch.load(f"{folder}/layer.safetensors")
    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.equal(same(x)[0], layer(x)[0])
    True
    """

    def like_of(name: str) -> Tensor:
        kind = getattr(torch, name) if dtype is None else dtype
        return torch.empty(0, device=device, dtype=kind)

    model = load_as(path, like_of)
    return InvertibleModule(model) if isinstance(model, ic.InvertibleConv) else model
