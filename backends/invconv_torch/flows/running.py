"""Running images through the layers of a flow, and noise through their inverses."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from invconv.flows.affine import optional_context
from invconv_torch.flows.coupling import AffineCoupling, Split
from invconv_torch.module import InvertibleModule
from invconv_torch.pointwise_layers import Squeeze
from invconv_torch.reversible import ReversibleChain

Layers: TypeAlias = Mapping[str, nn.Module]
Watch: TypeAlias = Callable[[str, Tensor], Tensor]
Shape: TypeAlias = tuple[int, int, int]


def takes_context(layer: nn.Module) -> bool:
    """Tell whether a layer is called with a context as second argument."""
    return getattr(layer, "context", None) is not None


def _beside(layer: nn.Module, context: Tensor | None) -> tuple[Tensor | None, ...]:
    return (context,) if takes_context(layer) else ()


def zero_context(layers: Iterable[nn.Module], like: Tensor) -> Tensor | None:
    """Return a context of zeros for one image, or None if no layer takes a context."""
    widths = [optional_context(layer.context) for layer in layers if takes_context(layer)]
    return like.new_zeros(1, widths[0]) if widths else None


def encode(
    layers: Layers, x: Tensor, context: Tensor | None = None, watch: Watch | None = None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the outputs of each split and of the last layer, and the sum of log-determinants.

    ``watch`` is called with a layer's name and its output, which it may change.
    """
    zs, total = [], x.new_zeros(x.shape[0])
    for name, layer in layers.items():
        out, log_det = layer(x, *_beside(layer, context))
        if isinstance(layer, Split):
            out, z = out
            zs.append(z if watch is None else watch(name, z))
        x = out if watch is None else watch(name, out)
        total = total + log_det
    return (*zs, x), total


def decode(
    layers: Layers, zs: Sequence[Tensor], context: Tensor | None = None, watch: Watch | None = None
) -> Tensor:
    """Undo `encode`; ``watch`` is called with the input of each layer's inverse."""
    *left, x = zs
    for name, layer in reversed(list(layers.items())):
        x = x if watch is None else watch(name, x)
        if isinstance(layer, Split):
            z = left.pop()
            x, _ = layer.inverse((x, z if watch is None else watch(name, z)))
        else:
            x, _ = layer.inverse(x, *_beside(layer, context))
    return x


@contextlib.contextmanager
def initializing(layers: Layers) -> Iterator[None]:
    """Initialize each layer with its first input inside this context: all layers, or none.

    If the block ends by an error, KeyboardInterrupt included, all layers are restored.
    """
    before = [(x, dict(vars(x)), copy.deepcopy(x.state_dict())) for x in layers.values()]
    try:
        with contextlib.ExitStack() as hooks:
            for name, layer in layers.items():
                hooks.enter_context(layer.register_forward_pre_hook(partial(_initialize, name)))
            yield
    except BaseException:
        for layer, attributes, state in before:
            vars(layer).clear()  # a user's layer may keep its flag in an attribute
            vars(layer).update(attributes)
            layer.load_state_dict(state)
        raise


def _initialize(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    try:
        layer.initialize(inputs[0])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def reversible(layers: Layers, before: list[nn.Module]) -> list[nn.Module]:
    """Return the layers, each run of them between splits joined into a `ReversibleChain`.

    ``before`` is the last result; it is returned again if the layers have not changed.
    """
    runs = [run if isinstance(run, ReversibleChain) else [run] for run in before]
    if [layer for run in runs for layer in run] == list(layers.values()):
        return before
    if any(takes_context(layer) for layer in layers.values()):
        raise ValueError("reversible: expected False where a layer takes a context, got True")
    groups = itertools.groupby(layers.values(), lambda layer: isinstance(layer, Split))
    return [
        part for split, run in groups for part in (run if split else [ReversibleChain(list(run))])
    ]


def latent_shapes(layers: Layers, shape: Shape, like: Tensor) -> list[Shape]:
    """Return the shape (C, H, W) of each piece of noise for an image of this shape.

    Copies of other packages' layers are run once, on zeros ``like`` the flow's parameters. An error
    names the layer that does not take the output of the layer before it.
    """
    noise: list[Shape] = []
    for name, layer in layers.items():
        try:
            shape = _shape_after(layer, shape, like)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"layers: {name} does not take images of shape {shape}: {error}"
            ) from None
        if isinstance(layer, Split):
            noise.append(shape)
    return [*noise, shape]


def _shape_after(layer: nn.Module, shape: Shape, like: Tensor) -> Shape:
    """Return the shape of a layer's output for an image; for a split, the shape of each half."""
    channels, height, width = shape
    own = layer.channels if isinstance(layer, AffineCoupling | Split) else None
    if isinstance(layer, InvertibleModule):
        conv = layer.operator()
        own = conv.channels
        if conv.ndim not in (None, 2):
            raise ValueError(f"expected 2 spatial axes, got {conv.ndim}")
    if own is not None:
        if own != channels:
            raise ValueError(f"expected {own} channels, got {channels}")
        return (channels // 2, height, width) if isinstance(layer, Split) else shape
    if isinstance(layer, Squeeze):
        like = like.to("meta")  # it only moves numbers
    x = like.new_zeros(1, *shape)
    found = (value for module in layer.modules() for value in vars(module).values())
    plain = {id(t): t.detach().clone() for t in found if isinstance(t, Tensor)}
    # a user's layer may initialize itself by its first images; deepcopy alone takes only leaves
    probe = copy.deepcopy(layer, plain)
    with torch.no_grad():
        z, _ = probe(x, *_beside(layer, zero_context([layer], like)))
    _, channels, height, width = z.shape
    return channels, height, width
