"""The density of images: pixels become real numbers, and log-densities become bits.

L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, ICLR 2016:
with u uniform in [0, 1), E[log p((n + u) / 256)] - D log 256 is at most the log-probability of the
D pixels n, so that

    bits/dim = -(log p(x) - D log 256) / (D log 2),    x = (n + u) / 256,

bounds the length of a lossless code from above.

Numbers out of range raise if they are readable. On an accelerator and in traced code, the result
for a sample that holds one is NaN instead.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    cast,
    dtype_name,
    namespace,
    ops_of,
    readable,
    to_numpy,
    widened,
)
from invconv.arrays.validation import require_array, require_beside, require_real
from invconv.flows.affine import sum_of_each

VALUES = 256  # of a pixel


def dequantized(images: Array, noise: Array) -> Array:
    """Return x = (n + u) / 256 for pixels n and noise u; n/256 <= x < (n + 1)/256 despite rounding.

    The pixels are of uint8, the noise is uniform in [0, 1), and x has its dtype. A 1, to which a
    cast may round, is taken as less than 1. Unreadable numbers out of range become NaN.
    """
    if images.dtype != require_array("images", images).uint8:
        raise TypeError(f"images: expected pixels in uint8, got {dtype_name(images.dtype)}")
    require_real("noise", noise)
    require_beside("noise", noise, "images", images)
    if tuple(noise.shape) != tuple(images.shape):
        raise ValueError(
            f"noise: expected the shape of the images, {tuple(images.shape)}, "
            f"got {tuple(noise.shape)}"
        )
    xp = namespace(images, noise)
    pixels = cast(images, noise.dtype)
    below_one = 1 - xp.finfo(noise.dtype).eps / 2  # the largest number below 1
    x = xp.minimum((pixels + noise) / VALUES, (pixels + 1) * (below_one / VALUES))
    outside = (noise < 0) | (noise > 1)
    if readable(outside):  # a constant inside jit is readable, and what is computed of it is not
        _require_none("noise", noise, outside, "numbers in [0, 1)")
        return x
    return ops_of(x).nan_where(outside, x)


def bits_per_dim(log_prob: Array, dimensions: int) -> Array:
    """Return bits a dimension of log p(x) in nats, for x from `dequantized`."""
    return (math.log(VALUES) - log_prob / dimensions) / math.log(2)


def log_prob(x: Array, zs: Sequence[Array], log_det: Array) -> Array:
    """Return log p(x) = log N(zs; 0, 1) + log|det| in nats, shape (B,), for images x.

    If x is not readable and an image is outside [0, 1), its log p(x) and gradients are NaN.
    """
    for z in zs:
        log_det = log_det - 0.5 * sum_of_each(widened(z) ** 2 + math.log(2 * math.pi))
    return log_det if readable(log_det) else nan_if_lost(log_det, _outside(x))


def nan_if_lost(log_det: Array, lost: Array) -> Array:
    """Return log-determinants; they and gradients are NaN for samples with a number ``lost``."""
    xp = namespace(lost, log_det)
    lost = xp.any(lost, axis=tuple(range(1, lost.ndim)))
    return log_det * ops_of(log_det).nan_where(lost, xp.ones_like(log_det))


def require_images(x: Any, shape: Shape) -> None:
    """Raise unless x is a real array of shape (B, *shape)."""
    require_real("x", x)
    if tuple(x.shape[1:]) != tuple(shape):
        expected = ", ".join(map(str, shape))
        raise ValueError(f"x: expected shape (B, {expected}), got {tuple(x.shape)}")


def require_in_range(x: Any) -> None:
    """Raise if images are readable and not in [0, 1); NaN passes."""
    require_array("x", x)
    outside = _outside(x)
    if readable(outside):
        _require_none("x", x, outside, "images in [0, 1)", "; bits_per_dim takes uint8 pixels")


def _outside(x: Array) -> Array:
    return (x < 0) | (x >= 1)


def _require_none(name: str, x: Array, outside: Array, expected: str, hint: str = "") -> None:
    """Raise ValueError if a number of x, which is readable, is marked as outside."""
    if bool(namespace(x).any(outside)):
        values = to_numpy(x)
        raise ValueError(
            f"{name}: expected {expected}, got numbers from {np.nanmin(values):.4g} to "
            f"{np.nanmax(values):.4g}{hint}"
        )


def require_latents(zs: Sequence[Any], shapes: Sequence[Shape]) -> None:
    """Raise unless zs are real arrays of the given shapes behind one batch axis."""
    if not isinstance(zs, tuple | list):
        raise TypeError(f"zs: expected a tuple of arrays, one per level, got {type(zs).__name__}")
    for z in zs:
        require_real("zs", z)
    got = [tuple(z.shape) for z in zs]
    alike = all(shape[:1] == got[0][:1] for shape in got)  # of torch.export they have no hash
    if [shape[1:] for shape in got] != [tuple(s) for s in shapes] or not alike:
        raise ValueError(f"zs: expected a batch of each of the shapes {list(shapes)}, got {got}")
