"""From an architecture to a model with parameters.

The flow of the paper is `invconv_torch.flows.Glow`, whose module lists how it differs from the code
of the paper's authors (github.com/ehoogeboom/emerging). In training, theirs does something else:

- The second decay of their Adamax depends on the steps of an epoch; here it is PyTorch's, 0.999.
- They report the parameters as they are at the best test loss; here Polyak's average at the end.
- Galaxies: they move 64 x 64 pixels by parts of a pixel and mirror the edges; here 32 x 32 are
  moved by whole pixels, and the edges are repeated.
"""

from __future__ import annotations

import torch

from invconv_benchmarks.density.models import maf, real_nvp
from invconv_benchmarks.density.models.architecture import Architecture
from invconv_torch.flows import Glow, Multiscale


def build(architecture: Architecture, image_shape: tuple[int, ...], seed: int) -> Multiscale:
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
    baselines = {"real_nvp": real_nvp.layers, "maf": maf.layers}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture.mixing in baselines:
            return Multiscale(shape, baselines[architecture.mixing](architecture, shape))
        return Glow(
            shape,
            architecture.levels,
            architecture.depth,
            architecture.width,
            mixing=architecture.mixing,
            kernel_size=architecture.kernel_size,
            scale_floor=architecture.scale_floor,
        )
