"""A layer as a transform of nflows (C. Durkan, A. Bekasov, I. Murray, G. Papamakarios)."""

from nflows.transforms.base import Transform
from torch import Tensor

from invconv_torch.interop.for_distributions import ConvOrModule, layer_of, viewable


class NflowsTransform(Transform):  # type: ignore[misc]
    """A layer for ``nflows.flows.Flow`` and ``nflows.transforms.CompositeTransform``.

    ``forward`` maps data to latents, as in all of nflows: the layer's own. A context is ignored.

    Parameters
    ----------
    conv : layer or InvertibleConv

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import EmergingConv2d
    >>> from invconv_torch.interop import NflowsTransform
    >>> z, log_det = NflowsTransform(EmergingConv2d(3))(torch.zeros(2, 3, 8, 8))
    """

    def __init__(self, conv: ConvOrModule) -> None:
        super().__init__()
        self.layer = layer_of(conv)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z = K x + b and log|det K|, one per sample."""
        return viewable(self.layer(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x = K^-1 (z - b) and log|det K^-1|, one per sample."""
        return viewable(self.layer.inverse(inputs))
