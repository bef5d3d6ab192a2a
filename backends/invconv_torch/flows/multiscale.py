"""A density of images from layers: maps with log-determinants, and noise."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Self, TypeAlias

import torch
from torch import Tensor, nn

from invconv.arrays.validation import flag, positive_int, sizes
from invconv.flows import density
from invconv_torch.flows import running
from invconv_torch.flows.dequantize import Dequantize
from invconv_torch.flows.in_order import LayersInOrder
from invconv_torch.native.host import device_kind

Layers: TypeAlias = Mapping[str, nn.Module] | Iterable[nn.Module]


class Multiscale(LayersInOrder):
    """A flow of images in [0, 1): layers one after the other, from x - 1/2 to noise.

        log p(x) = sum of log N(z; 0, 1) + log|det dz/dx|

    The noise is the part that each `Split` splits off, and the output of the last layer. The model
    assumes independent N(0, 1) numbers.

    Parameters
    ----------
    shape : tuple of int
        (C, H, W) of an image.
    layers : mapping of str to nn.Module, or iterable of nn.Module
        In the order in which an image passes through them, each with
        ``forward(x) -> (z, log_det)`` and ``inverse(z) -> (x, log_det)``, one log-determinant a
        sample: layers of invconv_torch, `AffineCoupling`, `Split`, your own. A layer with an
        attribute ``context`` that is not None is called with the context as second argument.
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

    def __init__(self, shape: Sequence[int], layers: Layers, *, reversible: bool = False) -> None:
        super().__init__()
        channels, height, width = sizes("shape", tuple(shape), 3)
        self.shape = channels, height, width
        named = layers if isinstance(layers, Mapping) else enumerate(layers)
        self.layers = nn.ModuleDict({str(name): layer for name, layer in dict(named).items()})
        self.dequantize = Dequantize().to(self._like)
        self.latent_shapes = running.latent_shapes(self.layers, self.shape, self._like)
        self._recomputes = flag("reversible", reversible)
        # in a list, which is no module, so that parameters keep their names
        self._runs = running.reversible(self.layers, []) if self._recomputes else []

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return `log_prob`; wrappers (DistributedDataParallel, compile) call ``forward``."""
        return self.log_prob(x, context=context)

    def log_prob(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Return log p(x) in nats, shape (B,), for images (B, C, H, W) in [0, 1).

        Raises
        ------
        ValueError
            If the images have another shape or, on a CPU, leave the range. On other devices, and in
            compiled code, log p(x) is NaN for an image that leaves it.
        """
        device_kind("x", x)
        density.require_in_range(x)
        return density.log_prob(x, *self.encode(x, context=context))

    def bits_per_dim(
        self, images: Tensor, noise: Tensor | None = None, *, context: Tensor | None = None
    ) -> Tensor:
        """Return bits a dimension, shape (B,), of pixels (B, C, H, W): see `Dequantize`.

        Parameters
        ----------
        images : uint8 tensor, shape (B, C, H, W)
        noise : tensor, shape (B, C, H, W), optional
            Uniform in [0, 1), of the flow's dtype; drawn anew unless it is given.
        context : tensor, optional
        """
        if noise is None:
            noise = torch.rand(images.shape, dtype=self._like.dtype, device=images.device)
        x, _ = self.dequantize(images, noise)
        return density.bits_per_dim(self.log_prob(x, context=context), self.dimensions)

    def draw_latents(self, n: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return noise for n images, drawn on the generator's device, on the flow's."""
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
        self.decode(zs, context=running.zero_context(self.layers.values(), self._like))
        if check:
            running.judge_remembered(self)
        return self
