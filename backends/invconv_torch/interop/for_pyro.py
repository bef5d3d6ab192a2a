"""A layer as a transform of Pyro (E. Bingham et al., JMLR 20(28), 2019)."""

from pyro.distributions import TransformModule

from invconv_torch.interop.for_distributions import TorchTransform


class PyroTransform(TorchTransform, TransformModule):  # type: ignore[misc]
    """A layer for ``pyro.distributions.TransformedDistribution``: it maps latents to data.

    A `TorchTransform` that is also a ``TransformModule`` of Pyro: ``pyro.module`` registers its
    parameters.

    Examples
    --------
    >>> import torch
    >>> from pyro.distributions import Normal, TransformedDistribution
    >>> from invconv_torch import EmergingConv2d
    >>> from invconv_torch.interop import PyroTransform
    >>> base = Normal(torch.zeros(3, 8, 8), 1.0).to_event(3)
    >>> images = TransformedDistribution(base, [PyroTransform(EmergingConv2d(3))])
    >>> images.log_prob(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2])
    """
