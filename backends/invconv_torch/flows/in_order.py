"""Layers one after the other, from images to noise and back."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invconv.flows import density
from invconv_torch.flows import running
from invconv_torch.flows.running import Watch
from invconv_torch.native.host import device_kind


class LayersInOrder(nn.Module):  # type: ignore[misc]
    """The part of `Multiscale` that runs its layers, from images to noise and back."""

    layers: nn.ModuleDict
    shape: tuple[int, int, int]
    latent_shapes: list[tuple[int, int, int]]
    _recomputes: bool
    _runs: list[nn.Module]

    @property
    def conditional(self) -> bool:
        """Whether a layer takes a context."""
        return any(running.takes_context(layer) for layer in self.layers.values())

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
        self._require_fits(x, context)
        density.require_in_range(x)
        with running.initializing(todo):
            running.encode(dict(self.steps()), x - 0.5, context)

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
            Called with the name and the output of each layer (of a `Split`, with z and then with
            the remaining channels); the next layer is given its result.

        Returns
        -------
        zs : tuple of tensor, shape (B, C, H, W) with each of ``latent_shapes``
        log_det : tensor, shape (B,)
        """
        self._require_fits(x, context)
        layers = dict(self.steps())
        if self._recomputes and watch is None and torch.is_grad_enabled():
            self._runs = running.reversible(self.layers, self._runs)
            layers = {str(i): part for i, part in enumerate(self._runs)}
        return running.encode(layers, x - 0.5, context, watch)

    def decode(
        self, zs: Sequence[Tensor], *, context: Tensor | None = None, watch: Watch | None = None
    ) -> Tensor:
        """Return the images of noise, shape (B, C, H, W); some may be outside [0, 1).

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
        return running.decode(dict(self.steps()), zs, context, watch) + 0.5

    @property
    def _like(self) -> Tensor:
        return next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0)).data

    def _require_fits(self, x: Tensor, context: Tensor | None) -> None:
        device_kind("x", x)
        density.require_images(x, self.shape)
        self._require_context(context)

    def _require_context(self, context: Tensor | None) -> None:
        if context is not None and not self.conditional:
            raise ValueError("context: expected none, as no layer takes a context")
