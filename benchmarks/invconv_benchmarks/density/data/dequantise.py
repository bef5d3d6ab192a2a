"""From pixels to a density and back: uniform noise, and bits a dimension.

L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, ICLR 2016:
with u uniform in [0, 1), E[log p(n + u)] is at most the log-probability of the pixels n, so

    bits/dim = -(log p(x) - D log 256) / (D log 2),    x = (n + u) / 256 - 1/2,

bounds the length of a lossless code from above. D log 256 is what the division takes from log p.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor

_VALUES = 256  # of a pixel


def dequantise(images: Tensor, noise: Tensor) -> Tensor:
    """Return x in [-1/2, 1/2].

    Parameters
    ----------
    images : uint8 tensor
    noise : tensor of the same shape
        Uniform in [0, 1); x has its dtype.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected pixels in uint8, got {images.dtype}")
    if noise.shape != images.shape:
        raise ValueError(
            f"noise: expected the shape of the images, {tuple(images.shape)}, "
            f"got {tuple(noise.shape)}"
        )
    return (images + noise) / _VALUES - 0.5


def quantise(x: Tensor) -> Tensor:
    """Return the pixels of x, uint8; what is outside [-1/2, 1/2) becomes the nearest of them."""
    return ((x + 0.5) * _VALUES).floor().clamp(0, _VALUES - 1).to(torch.uint8)


def bits_per_dim(log_prob: Tensor, dimensions: int) -> Tensor:
    """Return bits a dimension of log p(x) in nats, for x from `dequantise`."""
    return (math.log(_VALUES) - log_prob / dimensions) / math.log(2)
