"""From an architecture to a model with parameters."""

from __future__ import annotations

import torch

from invconv_benchmarks.density.models import flow, maf, real_nvp
from invconv_benchmarks.density.models.architecture import Architecture
from invconv_benchmarks.density.models.model import DensityModel


def build(architecture: Architecture, image_shape: tuple[int, ...], seed: int) -> DensityModel:
    """Return a model with parameters drawn from a seed, float32 and on the CPU.

    Parameters
    ----------
    architecture : Architecture
    image_shape : tuple of int
        (C, H, W).
    seed : int
        PyTorch's own generator is left as it was.

    Raises
    ------
    ValueError
        If the images cannot be halved as often as there are levels.
    """
    shape = architecture.require_fits(image_shape)
    kinds = {"real_nvp": real_nvp.layers, "maf": maf.layers}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = kinds.get(architecture.mixing, flow.layers)(architecture, shape)
        return DensityModel(shape, layers)
