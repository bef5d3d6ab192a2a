"""Flows of images as pytrees, with the architectures and the files of invconv_torch's."""

# may import all other modules of invconv_jax, and of the core what describes a flow
from invconv_jax.flows.glow import Glow

__all__ = ["Glow"]
