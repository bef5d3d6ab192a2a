"""The layer that trades pixels for channels."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import nn

import invconv as ic
from invconv_torch.traced import device_kind

Tensor: TypeAlias = torch.Tensor


class Squeeze(nn.Module):  # type: ignore[misc]
    """A layer that turns blocks of factor^ndim pixels into channels; the log-determinant is 0.

    Parameters
    ----------
    factor : int
    ndim : int
        The number of spatial axes.
    basis : {"pixels", "haar", "dct"}
        As for `invconv.squeeze`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import Squeeze
    >>> layer = Squeeze(basis="haar")
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> z.shape, torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    (torch.Size([5, 12, 4, 4]), True)
    """

    def __init__(self, factor: int = 2, *, ndim: int = 2, basis: str = "pixels") -> None:
        super().__init__()
        self._settings: dict[str, Any] = {"factor": factor, "ndim": ndim, "basis": basis}
        ic.squeeze(torch.zeros(1, *[factor] * ndim), **self._settings)  # validates the settings

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C f^ndim, *(spatial / f)), and zeros, shape (B,)."""
        device_kind("x", x)
        return ic.squeeze(x, **self._settings), x.new_zeros(x.shape[:1])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, *spatial), and zeros, shape (B,)."""
        device_kind("z", z)
        return ic.unsqueeze(z, **self._settings), z.new_zeros(z.shape[:1])

    def extra_repr(self) -> str:
        """Return the settings as text."""
        return ", ".join(f"{name}={value!r}" for name, value in self._settings.items())
