"""Modules of layers, for what takes a module: `functional_call`, exports, compilers."""

from collections.abc import Sequence
from typing import Any

import torch


class Method(torch.nn.Module):  # type: ignore[misc]
    """A layer whose forward is one of its directions."""

    def __init__(self, layer: Any, direction: str) -> None:
        super().__init__()
        self.layer, self.direction = layer, direction

    def forward(self, x: Any) -> Any:
        """Run the direction."""
        return getattr(self.layer, self.direction)(x)


class Both(torch.nn.Module):  # type: ignore[misc]
    """Each layer's forward and inverse, on an image of its own."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, *images: Any) -> Any:
        """Return (z, log_det, x, log_det) of each layer."""
        return [
            result
            for layer, x in zip(self.layers, images, strict=True)
            for result in (*layer(x), *layer.inverse(x))
        ]
