"""Flows of images, and the parts that they are made of."""

from invconv_torch.flows.coupling import AffineCoupling, Dequantize, Split
from invconv_torch.flows.glow import Glow
from invconv_torch.flows.multiscale import Multiscale

__all__ = ["AffineCoupling", "Dequantize", "Glow", "Multiscale", "Split"]
