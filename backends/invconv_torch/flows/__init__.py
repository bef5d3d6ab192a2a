"""Flows of images, and the parts that they are made of."""

# may import all other modules of invconv_torch, and of the core what describes a flow
from invconv_torch.flows.coupling import AffineCoupling, Split
from invconv_torch.flows.dequantize import Dequantize
from invconv_torch.flows.glow import Glow
from invconv_torch.flows.multiscale import Multiscale

__all__ = ["AffineCoupling", "Dequantize", "Glow", "Multiscale", "Split"]
