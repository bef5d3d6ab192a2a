"""Layers of flows: couplings, splits at the end of a level, and the dequantization of pixels.

In a coupling half of the channels determine scale and shift of the other half; in a split half of
the channels leave, as noise. L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real
NVP, ICLR 2017. Scale and shift have the form of D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018.
`invconv.flows` has the equations.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from invconv.arrays.namespaces import readable
from invconv.arrays.validation import flag, positive_int, require_real
from invconv.flows import density
from invconv_torch.module import Described
from invconv_torch.native.host import device_kind
from invconv_torch.precision import AUTOCAST, autocasting


def network(inputs: int, width: int, outputs: int, **where: Any) -> nn.Sequential:
    """Return the network of a coupling: 3x3, 1x1 and 3x3 convolutions, the last one zero."""
    last = nn.Conv2d(width, outputs, 3, padding=1, **where)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1, **where),
        nn.ReLU(),
        nn.Conv2d(width, width, 1, **where),
        nn.ReLU(),
        last,
    )


def shift_and_scale(h: Tensor, like: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Return shift and scale from a network's output (B, 2 C, H, W).

    Both have the dtype of ``like``: under autocast the network may run in half precision.
    """
    shift, h = h.to(like.dtype).chunk(2, dim=1)
    return shift, density.coupling_scale(h, floor, torch.sigmoid)


class AffineCoupling(Described):
    r"""Scale and shift half of the channels; a network computes both from the other half.

    $$z_1 = x_1, \qquad z_2 = (x_2 + t(x_1))\, s(x_1), \qquad \log|\det| = \sum \log s$$

    with the shift t and the scale $s = f + (1 - f)\, \text{sigmoid}(h(x_1) + 2)$, f the floor.
    At first h = t = 0. The paper's floor is 0: then the inverse, which
    divides by the scale, may explode if the network's input is far from the training data.

    Parameters
    ----------
    channels : int
        An even number.
    width : int
        Channels inside the network.
    scale_floor : float
        The least scale, at least 0 and below 1.
    context : int, optional
        Channels of a context, a further input of the network.
    swapped : bool
        Whether the second half is the network's input, and the first half is changed.
    device, dtype : optional

    Examples
    --------
    >>> import torch
    >>> from invconv_torch.flows import AffineCoupling
    >>> layer = AffineCoupling(4, width=8, context=2)
    >>> x, context = torch.randn(5, 4, 8, 8), torch.randn(5, 2)
    >>> z, log_det = layer(x, context)
    >>> torch.allclose(layer.inverse(z, context)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        scale_floor: float = 0.0,
        context: int | None = None,
        swapped: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        half = even_half(channels)
        self.channels = channels
        self.floor = density.scale_floor(scale_floor)
        self.context = density.optional_context(context)
        self.swapped = flag("swapped", swapped)
        settings = {"scale_floor": self.floor, "context": self.context, "swapped": self.swapped}
        self._kind = {"class": "AffineCoupling"} | settings
        inputs = half + (self.context or 0)
        where = {"device": device, "dtype": dtype}
        self.net = network(inputs, positive_int("width", width), channels, **where)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z, shape (B, C, H, W), and the log-determinants, shape (B,).

        Parameters
        ----------
        x : tensor, shape (B, C, H, W)
        context : tensor, shape (B, K) or (B, K, H', W'), optional
            The context: a vector for all pixels, or images, which are averaged over blocks to the
            grid of x.
        """
        kept, changed = self._halves("x", x)
        z, log_det = density.affine(changed, *self._shift_and_scale(kept, context))
        return self._joined(kept, z), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        kept, changed = self._halves("z", z)
        x, log_det = density.inverse_affine(changed, *self._shift_and_scale(kept, context))
        return self._joined(kept, x), log_det

    def _halves(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        require_images(name, x, self.channels)
        first, second = x.chunk(2, dim=1)
        return (second, first) if self.swapped else (first, second)

    def _joined(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat((changed, kept) if self.swapped else (kept, changed), dim=1)

    def _shift_and_scale(self, kept: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if context is not None and autocasting(device_kind("context", context)):
            context = context.to(kept.dtype) if context.dtype in AUTOCAST else context
        h = self.net(density.beside(kept, context, self.context))
        return shift_and_scale(h, kept, self.floor)


def require_images(name: str, x: Tensor, channels: int) -> None:
    """Raise unless x is a tensor of images with this number of channels."""
    device_kind(name, x)
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{name}: expected shape (B, {channels}, H, W), got {tuple(x.shape)}")


def even_half(channels: int) -> int:
    """Return half of an even number of channels, or raise."""
    if positive_int("channels", channels) % 2:
        raise ValueError(f"channels: expected an even number, of two halves, got {channels}")
    return channels // 2


class Split(Described):
    r"""A layer that splits off half of the channels, in units of a learned normal distribution.

    $$z = (x_2 - \mu(x_1))\, s(x_1), \qquad \log|\det| = \sum \log s$$

    with the mean $\mu$ and the scale $s = f + (1 - f)\, e^{-h(x_1)}$, f the floor.
    So log N(x_2; mean, 1 / scale) is log N(z; 0, 1) plus the log-determinant. At first mean is 0
    and scale is 1. The paper's floor is 0: then samples, which are divided by the scale, may
    explode.

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
        self.floor = density.scale_floor(scale_floor)
        self._kind = {"class": "Split", "scale_floor": self.floor}
        self.prior = nn.Conv2d(half, channels, 3, padding=1, device=device, dtype=dtype)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return x_1 and z, both of shape (B, C / 2, H, W), and the log-determinants."""
        require_images("x", x, self.channels)
        kept, left = x.chunk(2, dim=1)
        z, log_det = density.affine(left, *self._shift_and_scale(kept))
        return (kept.clone(), z), log_det  # a view of x could not be edited in place

    def inverse(self, kept_and_z: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return x, shape (B, C, H, W), and the log-determinants of the inverse, shape (B,)."""
        kept, z = kept_and_z
        require_images("kept", kept, self.channels // 2)
        device_kind("z", z)
        if z.shape != kept.shape:
            raise ValueError(f"z: expected shape {tuple(kept.shape)} as kept, got {tuple(z.shape)}")
        left, log_det = density.inverse_affine(z, *self._shift_and_scale(kept))
        return torch.cat((kept, left), dim=1), log_det

    def _shift_and_scale(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, h = self.prior(kept).to(kept.dtype).chunk(2, dim=1)
        return -mean, density.split_scale(h, self.floor)


class Dequantize(nn.Module):  # type: ignore[misc]
    """A layer that turns pixels n into $x = (n + u) / 256$ with noise u, uniform in [0, 1).

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
            Uniform in [0, 1); x has its dtype. Unless it is given, it is drawn in the layer's
            dtype: at first PyTorch's default, in a flow the flow's.

        Raises
        ------
        TypeError, ValueError
            If the images are not in uint8, or the noise has another shape, no real dtype or, on a
            CPU, numbers out of range. On other devices x is NaN at such numbers.
        """
        device_kind("images", images)
        if noise is None:
            noise = torch.rand(images.shape, dtype=self._like.dtype, device=images.device)
        x = density.dequantized(images, noise)
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
            log_det = density.nan_if_lost(log_det, lost)
        elif lost.any():
            raise ValueError("x: expected numbers, got NaN, which is no pixel")
        images = (x * density.VALUES).floor().clamp(0, density.VALUES - 1).to(torch.uint8)
        return images, log_det

    def _log_det(self, x: Tensor, sign: int) -> Tensor:
        kind = torch.promote_types(x.dtype, torch.float32)  # half types do not reach far enough
        log_det = sign * math.log(density.VALUES) * math.prod(x.shape[1:])
        return x.new_full(x.shape[:1], log_det, dtype=kind)
