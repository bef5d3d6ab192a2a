"""The density of images under a flow: affine maps, and pixels as real numbers.

A network computes shift and scale of an affine map from channels that stay as they are:

    z = (x + shift) scale,    log det = sum of log scale

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017. The scale is a
function of a network's output h as in D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018. The network
may see a context, too: a vector for each sample, or images.

L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, ICLR 2016:
with u uniform in [0, 1), E[log p((n + u) / 256)] - D log 256 is at most the log-probability of the
D pixels n, so that

    bits/dim = -(log p(x) - D log 256) / (D log 2),    x = (n + u) / 256,

bounds the length of a lossless code from above.

Numbers out of range raise if they are readable. On an accelerator and in traced code, the result
for a sample that holds one is NaN instead.
"""

import math
from collections.abc import Callable, Sequence
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
from invconv.arrays.validation import (
    finite_or_nan,
    is_number,
    positive_int,
    require_array,
    require_beside,
    require_real,
)

VALUES = 256  # the number of values of a pixel


def affine(x: Array, shift: Array, scale: Array) -> tuple[Array, Array]:
    """Return z = (x + shift) scale and the log-determinants, shape (B,)."""
    return (x + shift) * scale, sum_of_each(namespace(scale).log(widened(scale)))


def inverse_affine(z: Array, shift: Array, scale: Array) -> tuple[Array, Array]:
    """Return x = z / scale - shift and the log-determinants of the inverse, shape (B,)."""
    return z / scale - shift, -sum_of_each(namespace(scale).log(widened(scale)))


def coupling_scale(h: Array, floor: float, sigmoid: Callable[[Array], Array]) -> Array:
    """Return floor + (1 - floor) sigmoid(h + 2); the array API standard has no sigmoid."""
    return floor + (1 - floor) * sigmoid(h + 2)


def split_scale(h: Array, floor: float) -> Array:
    """Return floor + (1 - floor) exp(-h), the inverse of a standard deviation."""
    return floor + (1 - floor) * namespace(h).exp(-h)


def scale_floor(value: Any) -> float:
    """Return the least scale of an affine layer as a float, or raise unless it is in [0, 1)."""
    floor = finite_or_nan(value)
    if not is_number(value) or isinstance(value, bool) or not 0 <= floor < 1:
        raise ValueError(f"scale_floor: expected a number of at least 0 and below 1, got {value!r}")
    return floor


def sum_of_each(x: Array) -> Array:
    """Return the sum of each sample's numbers, shape (B,)."""
    return namespace(x).sum(x, axis=tuple(range(1, x.ndim)))


def optional_context(value: Any) -> int | None:
    """Return the number of channels of a context, or None without one; raise if it is invalid."""
    return None if value is None else positive_int("context", value)


def beside(x: Array, context: Array | None, channels: int | None) -> Array:
    """Return images x, shape (B, C, H, W), with the channels of a context appended.

    The context is a vector for all pixels, shape (B, K), or images, shape (B, K, H', W'), which are
    averaged over blocks to the grid of x. ``channels`` is K, or None if no context is expected.
    """
    if context is None and channels is None:
        return x
    given = _fitting(context, x, channels)
    xp, (batch, _, height, width) = namespace(x, given), x.shape
    if given.ndim == 2:
        images = xp.broadcast_to(given[:, :, None, None], (batch, channels, height, width))
    else:
        rows, columns = given.shape[2] // height, given.shape[3] // width
        blocks = xp.reshape(given, (batch, channels, height, rows, width, columns))
        images = xp.mean(blocks, axis=(3, 5))
    return xp.concat([x, images], axis=1)


def _fitting(context: Any, x: Array, channels: int | None) -> Array:
    """Return a context, or raise unless it fits images x."""
    batch, _, *grid = x.shape
    if context is not None:
        require_array("context", context)
        images = context.ndim == 4 and all(
            n > 0 and m > 0 and n % m == 0 for n, m in zip(context.shape[2:], grid, strict=True)
        )
        fits = tuple(context.shape[:2]) == (batch, channels) and context.dtype == x.dtype
        if fits and (images or context.ndim == 2):
            return context
    expected, got = "none", "none"
    if channels is not None:
        expected = f"{dtype_name(x.dtype)} of shape ({batch}, {channels})"
        expected += f" or images on a multiple of the grid {grid[0]} x {grid[1]}"
    if context is not None:
        got = f"{dtype_name(context.dtype)} of shape {tuple(context.shape)}"
    raise ValueError(f"context: expected {expected}, got {got}")


def dequantized(images: Array, noise: Array) -> Array:
    """Return x = (n + u) / 256 for pixels n and noise u; n/256 <= x < (n + 1)/256 despite rounding.

    The pixels are of uint8, the noise is uniform in [0, 1), and x has its dtype. Noise of 1, to
    which a cast may round, is taken as less than 1. Unreadable numbers out of range become NaN.
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
    if readable(outside):  # inside jit a constant is readable, results computed from it are not
        _require_none("noise", noise, outside, "numbers in [0, 1)")
        return x
    return ops_of(x).nan_where(outside, x)


def bits_per_dim(log_prob: Array, dimensions: int) -> Array:
    """Return bits per dimension for log p(x) in nats, with x from `dequantized`."""
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
    alike = all(shape[:1] == got[0][:1] for shape in got)  # torch.export's sizes have no hash
    if [shape[1:] for shape in got] != [tuple(s) for s in shapes] or not alike:
        raise ValueError(f"zs: expected a batch of each of the shapes {list(shapes)}, got {got}")
