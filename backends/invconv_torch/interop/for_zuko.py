"""A layer as a lazy transform of zuko (F. Rozet et al.)."""

from torch import Tensor
from torch.distributions import Transform
from zuko.lazy import LazyTransform

from invconv_torch.interop.for_distributions import ConvOrModule, TorchTransform


class ZukoTransform(LazyTransform):  # type: ignore[misc]
    """A layer for ``zuko.lazy.Flow``: it maps data to latents, the layer's own direction.

    Parameters
    ----------
    conv : layer or InvertibleConv
    ndim : int, optional
        As for `TorchTransform`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import EmergingConv2d
    >>> from invconv_torch.interop import ZukoTransform
    >>> z, log_det = ZukoTransform(EmergingConv2d(3))().call_and_ladj(torch.zeros(2, 3, 8, 8))
    """

    def __init__(self, conv: ConvOrModule, *, ndim: int | None = None) -> None:
        super().__init__()
        self.transform = TorchTransform(conv, ndim=ndim)

    def forward(self, c: Tensor | None = None) -> Transform:
        """Return the transform x -> z = K x + b; a context is ignored."""
        return self.transform.inv
