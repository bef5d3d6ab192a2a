"""A layer from pixels to numbers that have a density: `invconv.flows.density` has the equations."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import nn

from invconv.arrays.namespaces import readable
from invconv.flows.density import VALUES, dequantized
from invconv_torch.traced import device_kind, traced

Tensor: TypeAlias = torch.Tensor


def require_in_range(x: Tensor) -> None:
    """Raise unless images are in [0, 1), where it costs no wait for a device; NaN passes."""
    device_kind("x", x)
    if not traced() and readable(x) and x.numel() and (x.min() < 0 or x.max() >= 1):
        raise ValueError(
            f"x: expected images in [0, 1), got numbers from {float(x.min()):.4g} to "
            f"{float(x.max()):.4g}; Dequantize makes such images of uint8 pixels"
        )


class Dequantize(nn.Module):  # type: ignore[misc]
    """Pixels n become x = (n + u) / 256 with noise u, uniform in [0, 1).

    n/256 <= x < (n + 1)/256 holds for every u, also where rounding would break it, so that the
    inverse gives back the pixels.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch.flows import Dequantize
    >>> layer = Dequantize()
    >>> images = torch.tensor([[0, 255]], dtype=torch.uint8)
    >>> x, log_det = layer(images)
    >>> layer.inverse(x)[0].tolist(), log_det  # -2 log 256
    ([[0, 255]], tensor([-11.0904]))
    """

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x in [0, 1), and the log-determinants, shape (B,).

        Parameters
        ----------
        images : uint8 tensor, shape (B, ...)
        noise : tensor of the same shape, optional
            Uniform in [0, 1); x has its dtype, PyTorch's default unless it is given.

        Raises
        ------
        TypeError, ValueError
            If the images are not in uint8, or the noise has another shape or no real dtype.
        """
        device_kind("images", images)
        if noise is None:
            noise = torch.rand(images.shape, device=images.device)
        x = dequantized(images, noise)
        return x, self._log_det(x, -1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels, uint8, and the log-determinants of the inverse, shape (B,).

        What is outside [0, 1) becomes the nearest pixel.
        """
        images = (x * VALUES).floor().clamp(0, VALUES - 1).to(torch.uint8)
        return images, self._log_det(x, 1)

    def _log_det(self, x: Tensor, sign: int) -> Tensor:
        return x.new_full(x.shape[:1], sign * math.log(VALUES) * math.prod(x.shape[1:]))
