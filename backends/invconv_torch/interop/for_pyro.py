"""A layer as a transform of Pyro (E. Bingham et al., JMLR 20(28), 2019)."""

from __future__ import annotations

from pyro.distributions import TransformModule

from invconv_torch.interop.for_distributions import TorchTransform


class PyroTransform(TorchTransform, TransformModule):  # type: ignore[misc]
    """A layer for ``pyro.distributions.TransformedDistribution``: latent to data.

    The same as `TorchTransform`, and one of Pyro's ``TransformModule``: ``pyro.module`` registers
    its parameters.
    """
