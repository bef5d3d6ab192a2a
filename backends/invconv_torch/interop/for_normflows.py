"""A layer as a flow of normflows (V. Stimper et al., JOSS 8(86), 2023)."""

from normflows.flows import Flow
from torch import Tensor

from invconv_torch.interop.for_distributions import ConvOrModule, layer_of, viewable


class NormflowsFlow(Flow):  # type: ignore[misc]
    """A layer for ``normflows.NormalizingFlow`` and similar classes.

    ``forward`` maps latents to data, as in all of normflows: the layer's *inverse*. A context is
    ignored.

    Parameters
    ----------
    conv : layer or InvertibleConv

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import EmergingConv2d
    >>> from invconv_torch.interop import NormflowsFlow
    >>> z, log_det = NormflowsFlow(EmergingConv2d(3)).inverse(torch.zeros(2, 3, 8, 8))
    """

    def __init__(self, conv: ConvOrModule) -> None:
        super().__init__()
        self.layer = layer_of(conv)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x = K^-1 (z - b) and log|det K^-1|, one per sample."""
        return viewable(self.layer.inverse(z))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return K x + b and log|det K|, one per sample, for data x, which normflows names z."""
        return viewable(self.layer(z))
