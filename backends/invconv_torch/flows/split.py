"""The end of a level: half of the channels leave, as noise.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017, section 3.6.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import nn

from invconv.flows import affine as maps
from invconv.flows.affine import affine, inverse_affine
from invconv_torch.flows.coupling import even_half

Tensor: TypeAlias = torch.Tensor


class Split(nn.Module):  # type: ignore[misc]
    """A layer that splits off half of the channels, in units of a learned normal distribution.

    z = (x_2 - mean(x_1)) scale(x_1), so that log N(x_2; mean, 1 / scale) is log N(z; 0, 1) plus
    the log-determinant, the sum of log scale. At first mean is 0 and

        scale = floor + (1 - floor) exp(-h(x_1))

    is 1. Glow's floor is 0: then samples, which are divided by the scale, may explode.

    Parameters
    ----------
    channels : int
        An even number.
    scale_floor : float
        The least scale, at least 0 and below 1.
    device, dtype : optional

    Examples
    --------
    >>> import torch
    >>> from invconv_torch.flows import Split
    >>> layer = Split(4)
    >>> x = torch.randn(5, 4, 8, 8)
    >>> (kept, z), log_det = layer(x)
    >>> kept.shape, torch.equal(layer.inverse((kept, z))[0], x)
    (torch.Size([5, 2, 8, 8]), True)
    """

    def __init__(
        self, channels: int, *, scale_floor: float = 0.0, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        half = even_half(channels)
        self.channels = channels
        self.floor = maps.scale_floor(scale_floor)
        self.prior = nn.Conv2d(half, channels, 3, padding=1, device=device, dtype=dtype)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return x_1 and z, both of shape (B, C / 2, H, W), and the log-determinants."""
        kept, left = x.chunk(2, dim=1)
        z, log_det = affine(left, *self._shift_and_scale(kept))
        return (kept.clone(), z), log_det  # a view of x could not be edited in place

    def inverse(self, kept_and_z: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        kept, z = kept_and_z
        left, log_det = inverse_affine(z, *self._shift_and_scale(kept))
        return torch.cat((kept, left), dim=1), log_det

    def _shift_and_scale(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, h = self.prior(kept).to(kept.dtype).chunk(2, dim=1)
        return -mean, maps.split_scale(h, self.floor)

    def extra_repr(self) -> str:
        """Return the settings as text."""
        return f"scale_floor={self.floor}"
