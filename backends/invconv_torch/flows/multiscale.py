"""A density model of images, made of layers that map images to noise."""

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn

from invconv.arrays.validation import flag, positive_int, sizes
from invconv.flows import density
from invconv.flows.density import optional_context
from invconv_torch.chain import ReversibleChain, invertible
from invconv_torch.flows.coupling import AffineCoupling, Dequantize, Split
from invconv_torch.module import InvertibleModule
from invconv_torch.native.host import device_kind, require_whole, shared_out
from invconv_torch.pointwise_layers import Squeeze

Layers: TypeAlias = Mapping[str, nn.Module]
Watch: TypeAlias = Callable[[str, Tensor], Tensor]
Shape: TypeAlias = tuple[int, int, int]


class Multiscale(nn.Module):  # type: ignore[misc]
    r"""A flow of images in [0, 1): layers one after the other, from x - 1/2 to noise.

    $$\log p(x) = \sum \log N(z; 0, 1) + \log|\det dz/dx|$$

    The noise z is the parts that each `Split` splits off, and the output of the last layer. In the
    model its numbers are independent and N(0, 1).

    Parameters
    ----------
    shape : tuple of int
        (C, H, W) of an image.
    layers : mapping of str to nn.Module, or iterable of nn.Module
        In the order in which an image passes through them, each with
        ``forward(x) -> (z, log_det)`` and ``inverse(z) -> (x, log_det)``, one log-determinant a
        sample: layers of invconv_torch, `AffineCoupling`, `Split`, your own. A layer with an
        attribute ``context``, the number of channels of its context, that is not None is called
        with the context as second argument.
    reversible : bool
        Keep only inputs and outputs of the layers between splits for the gradient, and recompute
        the rest, as in `ReversibleChain`, in about twice the time.

    Attributes
    ----------
    shape : tuple of int
    latent_shapes : list of tuple of int
        (C, H, W) of each piece of noise, the coarsest last.

    Raises
    ------
    ValueError
        If a layer does not take the output of the layer before it; the message names the layer.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import ActNorm, EmergingConv2d, Squeeze
    >>> from invconv_torch.flows import AffineCoupling, Multiscale, Split
    >>> fine = [Squeeze(), ActNorm(12), EmergingConv2d(12), AffineCoupling(12, width=8), Split(12)]
    >>> flow, x = Multiscale((3, 8, 8), [*fine, Squeeze(basis="haar")]), torch.rand(5, 3, 8, 8)
    >>> flow.initialize(x)
    >>> flow.log_prob(x).shape, flow.bits_per_dim((256 * x).to(torch.uint8)).shape
    (torch.Size([5]), torch.Size([5]))
    >>> torch.allclose(flow.decode(flow.encode(x)[0]), x, atol=1e-4)
    True
    >>> flow.prepare().sample(2).shape, len(flow.draw_latents(2)), len(flow.steps())
    (torch.Size([2, 3, 8, 8]), 2, 6)
    """

    def __init__(
        self,
        shape: Sequence[int],
        layers: Layers | Iterable[nn.Module],
        *,
        reversible: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width = sizes("shape", tuple(shape), 3)
        self.shape = channels, height, width
        named = invertible(layers)
        self.layers = nn.ModuleDict({str(name): layer for name, layer in named.items()})
        if len(self.layers) != len(named):
            raise ValueError(f"layers: expected names that differ as text, got {list(named)}")
        self.dequantize = Dequantize().to(self._like)
        self.latent_shapes = _latent_shapes(self.layers, self.shape, self._like)
        self._recomputes = flag("reversible", reversible)
        # in a list, which is no module, so that parameters keep their names
        self._runs = _reversible(self.layers, []) if self._recomputes else []

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return `log_prob`; wrappers (DistributedDataParallel, compile) call ``forward``."""
        return self.log_prob(x, context=context)

    @property
    def conditional(self) -> bool:
        """Whether a layer takes a context."""
        return any(_takes_context(layer) for layer in self.layers.values())

    def steps(self) -> list[tuple[str, nn.Module]]:
        """Return the layers in order, with their names in ``named_modules``."""
        return [(f"layers.{name}", layer) for name, layer in self.layers.items()]

    @property
    def initialized(self) -> bool:
        """Whether `initialize` has run; each actnorm saves that with its parameters."""
        return all(bool(layer.initialized) for layer in self._to_be_initialized().values())

    def _to_be_initialized(self) -> dict[str, nn.Module]:
        """Return the actnorms, and other layers with ``initialize``, at any depth."""
        return {
            name: layer
            for name, layer in self.layers.named_modules(prefix="layers")
            if hasattr(layer, "initialized") and callable(getattr(layer, "initialize", None))
        }

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initialize(self, x: Tensor, *, context: Tensor | None = None) -> None:
        """Initialize each actnorm, once: its output for these images gets mean 0 and variance 1.

        Actnorms inside of other layers are initialized, too. If an error, or the user, stops this
        method, every actnorm stays as it was before.

        Parameters
        ----------
        x : tensor, shape (B, C, H, W)
            Images in [0, 1).
        context : tensor, optional

        Raises
        ------
        RuntimeError, ValueError
            If the flow is initialized already; if a channel is constant, or not finite.
        """
        todo = self._to_be_initialized()
        if todo and self.initialized:
            raise RuntimeError("initialize: the flow is initialized already")
        parameters = (p for layer in todo.values() for p in layer.parameters())
        require_whole("initialize", parameters, "call it before")
        device_kind("x", x)
        density.require_in_range(x)
        with _initializing(todo):
            self.encode(x, context=context)

    def encode(
        self, x: Tensor, *, context: Tensor | None = None, watch: Watch | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the noise of images, and log|det dz/dx|, shape (B,).

        Parameters
        ----------
        x : tensor, shape (B, C, H, W)
        context : tensor, shape (B, K) or (B, K, H', W'), optional
            The context, for the layers that take one.
        watch : callable, optional
            Called with the name and the output of each layer (for a `Split`, with z and then with
            the remaining channels); the next layer is given the callable's result.

        Returns
        -------
        zs : tuple of tensor, shape (B, C, H, W) with each of ``latent_shapes``
        log_det : tensor, shape (B,)
        """
        device_kind("x", x)
        density.require_images(x, self.shape)
        self._require_context(context)
        layers = dict(self.steps())
        if self._recomputes and watch is None and torch.is_grad_enabled():
            self._runs = _reversible(self.layers, self._runs)
            layers = {str(i): part for i, part in enumerate(self._runs)}
        zs, total, x = [], x.new_zeros(x.shape[0]), x - 0.5
        for name, layer in layers.items():
            out, log_det = layer(x, *_beside(layer, context))
            if isinstance(layer, Split):
                out, z = out
                zs.append(z if watch is None else watch(name, z))
            x = out if watch is None else watch(name, out)
            total = total + log_det
        return (*zs, x), total

    def decode(
        self, zs: Sequence[Tensor], *, context: Tensor | None = None, watch: Watch | None = None
    ) -> Tensor:
        """Return the images of noise, shape (B, C, H, W); some numbers may be outside [0, 1).

        Parameters
        ----------
        zs : sequence of tensor, shape (B, C, H, W) with each of ``latent_shapes``
        context : tensor, optional
            As for `encode`.
        watch : callable, optional
            As for `encode`, called with the input of each layer's inverse.
        """
        density.require_latents(zs, self.latent_shapes)
        self._require_context(context)
        *left, x = zs
        for name, layer in reversed(self.steps()):
            x = x if watch is None else watch(name, x)
            if isinstance(layer, Split):
                z = left.pop()
                x, _ = layer.inverse((x, z if watch is None else watch(name, z)))
            else:
                x, _ = layer.inverse(x, *_beside(layer, context))
        return x + 0.5

    def log_prob(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Return log p(x) in nats, shape (B,), for images (B, C, H, W) in [0, 1).

        Raises
        ------
        ValueError
            If the images have another shape or, on a CPU, numbers out of range. On other devices,
            and in compiled code, log p(x) is NaN for an image with such numbers.
        """
        device_kind("x", x)
        density.require_in_range(x)
        return density.log_prob(x, *self.encode(x, context=context))

    def bits_per_dim(
        self, images: Tensor, noise: Tensor | None = None, *, context: Tensor | None = None
    ) -> Tensor:
        """Return bits per dimension, shape (B,), of pixels (B, C, H, W): see `Dequantize`.

        Parameters
        ----------
        images : uint8 tensor, shape (B, C, H, W)
        noise : tensor, shape (B, C, H, W), optional
            Uniform in [0, 1), of the flow's dtype; drawn anew unless it is given.
        context : tensor, optional
        """
        x, _ = self.dequantize(images, noise)
        return density.bits_per_dim(self.log_prob(x, context=context), self.dimensions)

    def draw_latents(self, n: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return noise for n images, on the flow's device, drawn on the generator's device."""
        like, count = self._like, positive_int("n", n)
        where = like.device if generator is None else generator.device
        return [
            torch.randn((count, *shape), generator=generator, device=where, dtype=like.dtype).to(
                like.device
            )
            for shape in self.latent_shapes
        ]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def sample(
        self,
        n: int,
        temperature: float = 1.0,
        *,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return n images, shape (n, C, H, W); some numbers may be outside [0, 1).

        Parameters
        ----------
        n : int
        temperature : float
            The factor of the noise: below 1 samples are less varied, and cleaner.
        context : tensor, shape (n, K) or (n, K, H', W'), optional
        generator : torch.Generator, optional
            PyTorch's own unless it is given.
        """
        zs = [temperature * z for z in self.draw_latents(n, generator)]
        return self.decode(zs, context=context)

    @property
    def dimensions(self) -> int:
        """Pixels times channels of an image."""
        return math.prod(self.shape)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def prepare(self, *, check: bool = True) -> Self:
        """Set eval mode and factor the inverses of all layers, which samples then reuse.

        One image is decoded, so that layers inside of other layers are factored, too.

        Parameters
        ----------
        check : bool
            Whether to judge the inverses.

        Raises
        ------
        SingularConvError
            If a layer is singular (on a CPU).

        Warns
        -----
        IllConditionedWarning
            If a layer's inverse cannot be right.
        """
        self.eval()
        zs = [self._like.new_zeros(1, *shape) for shape in self.latent_shapes]
        self.decode(zs, context=_zero_context(self.layers.values(), self._like))
        for layer in self.modules() if check else ():
            if isinstance(layer, InvertibleModule) and layer._inverses is not None:
                for grid in layer._inverses.grids():
                    layer.operator().prepare(grid)
        return self

    @property
    def _like(self) -> Tensor:
        like = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0)).data
        return like.to_local() if shared_out(like) else like  # an image is no DTensor

    def _require_context(self, context: Tensor | None) -> None:
        if context is not None and not self.conditional:
            raise ValueError("context: expected none, as no layer takes a context")


def _takes_context(layer: nn.Module) -> bool:
    """Tell whether a layer is called with a context as second argument."""
    return getattr(layer, "context", None) is not None


def _beside(layer: nn.Module, context: Tensor | None) -> tuple[Tensor | None, ...]:
    return (context,) if _takes_context(layer) else ()


def _zero_context(layers: Iterable[nn.Module], like: Tensor) -> Tensor | None:
    """Return a context of zeros for one image, or None if no layer takes a context."""
    widths = [optional_context(layer.context) for layer in layers if _takes_context(layer)]
    return like.new_zeros(1, widths[0]) if widths else None


@contextlib.contextmanager
def _initializing(layers: Layers) -> Iterator[None]:
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


def _reversible(layers: Layers, before: list[nn.Module]) -> list[nn.Module]:
    """Return the layers, each run of them between splits joined into a `ReversibleChain`.

    ``before`` is the last result; it is returned again if the layers have not changed.
    """
    runs = [run if isinstance(run, ReversibleChain) else [run] for run in before]
    if [layer for run in runs for layer in run] == list(layers.values()):
        return before
    if any(_takes_context(layer) for layer in layers.values()):
        raise ValueError("reversible: expected False where a layer takes a context, got True")
    groups = itertools.groupby(layers.values(), lambda layer: isinstance(layer, Split))
    return [
        part for split, run in groups for part in (run if split else [ReversibleChain(list(run))])
    ]


def _latent_shapes(layers: Layers, shape: Shape, like: Tensor) -> list[Shape]:
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
    # a copy: a layer may initialize itself on first images; deepcopy alone refuses non-leaf tensors
    probe = copy.deepcopy(layer, plain)
    with torch.no_grad():
        z, _ = probe(x, *_beside(layer, _zero_context([layer], like)))
    _, channels, height, width = z.shape
    return channels, height, width
