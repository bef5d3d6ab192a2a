"""The density of images: from pixels to numbers that have one, and to bits.

L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, ICLR 2016:
with u uniform in [0, 1), E[log p((n + u) / 256)] - D log 256 is at most the log-probability of the
D pixels n, so that

    bits/dim = -(log p(x) - D log 256) / (D log 2),    x = (n + u) / 256,

bounds the length of a lossless code from above.

Called by the flows of invconv_torch and invconv_jax.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from invconv.arrays.namespaces import Array, Shape, cast, dtype_name, namespace
from invconv.arrays.validation import require_array, require_real
from invconv.flows.affine import in_full, sum_of_each

VALUES = 256  # of a pixel


def dequantized(images: Array, noise: Array) -> Array:
    """Return x = (n + u) / 256 of pixels n and noise u, and n/256 <= x < (n + 1)/256.

    So it is also where rounding would break it.

    Parameters
    ----------
    images : uint8 array
    noise : array of the same shape
        Uniform in [0, 1); x has its dtype.

    Raises
    ------
    TypeError, ValueError
        If the images are not in uint8, or the noise has another shape or no real dtype.
    """
    if images.dtype != require_array("images", images).uint8:
        raise TypeError(f"images: expected pixels in uint8, got {dtype_name(images.dtype)}")
    require_real("noise", noise)
    if tuple(noise.shape) != tuple(images.shape):
        raise ValueError(
            f"noise: expected the shape of the images, {tuple(images.shape)}, "
            f"got {tuple(noise.shape)}"
        )
    xp = namespace(images, noise)
    pixels = cast(images, noise.dtype)
    below_one = 1 - xp.finfo(noise.dtype).eps / 2  # the largest number below 1
    return xp.minimum((pixels + noise) / VALUES, (pixels + 1) * (below_one / VALUES))


def bits_per_dim(log_prob: Array, dimensions: int) -> Array:
    """Return bits a dimension of log p(x) in nats, for x from `dequantized`."""
    return (math.log(VALUES) - log_prob / dimensions) / math.log(2)


def standard_normal(z: Array) -> Array:
    """Return log N(z; 0, 1) of each sample, shape (B,)."""
    return -0.5 * sum_of_each(in_full(z) ** 2 + math.log(2 * math.pi))


def require_images(x: Any, shape: Shape) -> None:
    """Raise unless x is a real array of shape (B, *shape)."""
    require_real("x", x)
    if tuple(x.shape[1:]) != tuple(shape):
        expected = ", ".join(map(str, shape))
        raise ValueError(f"x: expected shape (B, {expected}), got {tuple(x.shape)}")


def require_latents(zs: Sequence[Any], shapes: Sequence[Shape]) -> None:
    """Raise unless each of zs is a real array, of one of the shapes for each of the samples."""
    if not isinstance(zs, tuple | list):
        raise TypeError(f"zs: expected a tuple of arrays, one a level, got {type(zs).__name__}")
    for z in zs:
        require_real("zs", z)
    found = [tuple(z.shape) for z in zs]
    batches = {shape[:1] for shape in found}
    if [shape[1:] for shape in found] != [tuple(s) for s in shapes] or len(batches) > 1:
        raise ValueError(f"zs: expected a batch of each of the shapes {list(shapes)}, got {found}")
