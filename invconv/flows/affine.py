"""Affine maps; a network computes shift and scale from channels that stay as they are.

    z = (x + shift) scale,    log det = sum of log scale

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017. The scale is a
function of a network's output h as in D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018. The network
may see a context, too: a vector for each sample, or images.
"""

from collections.abc import Callable
from typing import Any

from invconv.arrays.namespaces import Array, dtype_name, namespace, widened
from invconv.arrays.validation import finite_or_nan, is_number, positive_int, require_array


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
    if context is not None:
        got = f"{dtype_name(context.dtype)} of shape {tuple(context.shape)}"
    raise ValueError(
        f"context: expected {expected} or images on a multiple of the grid {grid[0]} x {grid[1]}, "
        f"got {got}"
    )
