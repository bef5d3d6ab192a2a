"""A layer from pixels to real numbers, with noise: `invconv.flows.density` has the equations."""

import math

import torch
from torch import Tensor, nn

from invconv.arrays.namespaces import readable
from invconv.arrays.validation import require_real
from invconv.flows.density import VALUES, dequantized, nan_if_lost
from invconv_torch.native.host import device_kind


class Dequantize(nn.Module):  # type: ignore[misc]
    """A layer that turns pixels n into `x = (n + u) / 256` with noise u, uniform in [0, 1).

    n/256 <= x < (n + 1)/256 holds for every u, despite rounding, so that the inverse returns the
    pixels.

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

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x in [0, 1), and the log-determinants, shape (B,).

        Parameters
        ----------
        images : uint8 tensor, shape (B, ...)
        noise : tensor of the same shape, optional
            Uniform in [0, 1); x has its dtype. Unless it is given, it is drawn in the layer's,
            PyTorch's default at first; the layer of a flow has the flow's.

        Raises
        ------
        TypeError, ValueError
            If the images are not in uint8, or the noise has another shape, no real dtype or, on a
            CPU, numbers out of range. On other devices x is NaN at such numbers.
        """
        device_kind("images", images)
        if noise is None:
            noise = torch.rand(images.shape, dtype=self._like.dtype, device=images.device)
        x = dequantized(images, noise)
        return x, self._log_det(x, -1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels, uint8, and the log-determinants of the inverse, shape (B,).

        A number outside [0, 1) becomes the nearest pixel.

        Raises
        ------
        TypeError, ValueError
            If the numbers are not real, or a number is NaN, on a CPU. On other devices the sample's
            log-determinant is NaN.
        """
        device_kind("x", x)
        require_real("x", x)
        log_det, lost = self._log_det(x, 1), x.isnan()
        if not readable(x):
            log_det = nan_if_lost(log_det, lost)
        elif lost.any():
            raise ValueError("x: expected numbers, got NaN, which is no pixel")
        images = (x * VALUES).floor().clamp(0, VALUES - 1).to(torch.uint8)
        return images, log_det

    def _log_det(self, x: Tensor, sign: int) -> Tensor:
        kind = torch.promote_types(x.dtype, torch.float32)  # half types do not reach far enough
        log_det = sign * math.log(VALUES) * math.prod(x.shape[1:])
        return x.new_full(x.shape[:1], log_det, dtype=kind)
