"""A density model of images: layers that are maps with log-determinants, and a normal distribution.

log p(x) = sum of log N(z; 0, 1) + log|det dz/dx|
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import nn

from invconv_benchmarks.density.data.dequantise import bits_per_dim, dequantise
from invconv_benchmarks.density.models.multiscale import Split
from invconv_torch import ActNorm

Tensor: TypeAlias = torch.Tensor
Watch: TypeAlias = Callable[[str, Tensor], Tensor]


class DensityModel(nn.Module):  # type: ignore[misc]
    """Layers one after the other. The outputs of each `Split` and of the last layer are the noise.

    Parameters
    ----------
    image_shape : tuple of int
        (C, H, W).
    layers : mapping of str to nn.Module
        In the order in which an image meets them, each with ``forward(x) -> (z, log_det)`` and
        ``inverse(z) -> (x, log_det)``, one log-determinant a sample.

    Attributes
    ----------
    image_shape : tuple of int
    latent_shapes : list of tuple of int
        (C, H, W) of each piece of noise.
    """

    def __init__(self, image_shape: tuple[int, int, int], layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.layers = nn.ModuleDict(layers)
        with torch.no_grad():
            zs, _ = self.encode(torch.zeros(1, *image_shape))
        self.latent_shapes: list[tuple[int, int, int]] = [tuple(z.shape[1:]) for z in zs]

    @property
    def dimensions(self) -> int:
        """How many numbers an image has."""
        return math.prod(self.image_shape)

    def steps(self) -> list[tuple[str, nn.Module]]:
        """Return the layers in order, by the names that ``named_modules`` gives them."""
        return [(f"layers.{name}", layer) for name, layer in self.layers.items()]

    @property
    def initialised(self) -> bool:
        """Whether `initialise` has run, which each actnorm saves with its parameters."""
        return all(layer.initialized for _, layer in self.steps() if isinstance(layer, ActNorm))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initialise(self, x: Tensor) -> None:
        """Choose each actnorm so that these images leave it with mean 0 and variance 1.

        Parameters
        ----------
        x : tensor, shape (B, C, H, W)

        Raises
        ------
        RuntimeError
            If it has been done.
        ValueError
            If a channel is the same in all images, or not finite.
        """
        if self.initialised:
            raise RuntimeError("initialise: the model is initialised already")
        self._require_images(x)
        for name, layer in self.steps():
            if isinstance(layer, ActNorm):
                try:
                    layer.initialize(x)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
            out, _ = layer(x)
            x = out[0] if isinstance(layer, Split) else out

    def forward(self, x: Tensor) -> Tensor:
        """Return `log_prob`, as what wraps a module (DistributedDataParallel, compile) expects."""
        return self.log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, shape (B,), of images (B, C, H, W) in [-1/2, 1/2)."""
        zs, log_det = self.encode(x)
        for z in zs:
            log_det = log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=(1, 2, 3))
        return log_det

    def bits_per_dim(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return bits a dimension, shape (B,), of pixels (B, C, H, W).

        Parameters
        ----------
        images : uint8 tensor, shape (B, C, H, W)
        noise : tensor, shape (B, C, H, W)
            Uniform in [0, 1), of the model's dtype.
        """
        return bits_per_dim(self.log_prob(dequantise(images, noise)), self.dimensions)

    def encode(self, x: Tensor, watch: Watch | None = None) -> tuple[list[Tensor], Tensor]:
        """Return the noise of images, and log|det dz/dx|, shape (B,).

        Parameters
        ----------
        x : tensor, shape (B, C, H, W)
        watch : callable, optional
            Called with the name and the output of each layer (of a `Split`, with z and then with
            what stays); the next layer is given what it returns.

        Returns
        -------
        zs : list of tensor, shape (B, C, H, W) with each of ``latent_shapes``
            Of independent N(0, 1) numbers, says the model.
        log_det : tensor, shape (B,)
        """
        self._require_images(x)
        zs, total = [], x.new_zeros(len(x))
        for name, layer in self.steps():
            out, log_det = layer(x)
            if isinstance(layer, Split):
                out, z = out
                zs.append(z if watch is None else watch(name, z))
            x = out if watch is None else watch(name, out)
            total = total + log_det
        return [*zs, x], total

    def decode(self, zs: Sequence[Tensor], watch: Watch | None = None) -> Tensor:
        """Return the images of noise, shape (B, C, H, W).

        Parameters
        ----------
        zs : list of tensor, shape (B, C, H, W) with each of ``latent_shapes``
        watch : callable, optional
            As for `encode`, called with what each layer is about to invert.
        """
        shapes = [tuple(z.shape[1:]) for z in zs]
        if shapes != self.latent_shapes:
            raise ValueError(
                f"zs: expected a batch of each of the shapes {self.latent_shapes}, got {shapes}"
            )
        *left, x = zs
        for name, layer in reversed(self.steps()):
            x = x if watch is None else watch(name, x)
            if isinstance(layer, Split):
                z = left.pop()
                x, _ = layer.inverse((x, z if watch is None else watch(name, z)))
            else:
                x, _ = layer.inverse(x)
        return x

    def draw_latents(self, count: int, generator: torch.Generator) -> list[Tensor]:
        """Return noise for so many images, drawn on the generator's device, on the model's."""
        like = next(self.parameters())
        return [
            torch.randn(
                (count, *shape), generator=generator, device=generator.device, dtype=like.dtype
            ).to(like.device)
            for shape in self.latent_shapes
        ]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def sample(self, count: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Return so many images, shape (count, C, H, W); some may be outside [-1/2, 1/2).

        Parameters
        ----------
        count : int
        generator : torch.Generator
        temperature : float
            What the noise is multiplied with: below 1 samples are less varied, and cleaner.
        """
        return self.decode([temperature * z for z in self.draw_latents(count, generator)])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def first_non_finite(self, x: Tensor) -> str | None:
        """Return the name of the first layer whose output for x has a NaN or inf, if any."""
        names: list[str] = []

        def look(name: str, out: Tensor) -> Tensor:
            if not torch.isfinite(out).all():
                names.append(name)
            return out

        self.encode(x, look)
        return names[0] if names else None

    def _require_images(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"x: expected shape (B, {', '.join(map(str, self.image_shape))}), "
                f"got {tuple(x.shape)}"
            )
