"""The context of a flow's couplings: a vector for each sample, or images."""

from __future__ import annotations

from typing import Any

from invconv.arrays.namespaces import Array, dtype_name, namespace
from invconv.arrays.settings import positive_int
from invconv.arrays.validation import require_array


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
            n > 0 and n % m == 0 for n, m in zip(context.shape[2:], grid, strict=True)
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
