"""Affine maps; a network computes shift and scale from channels that stay as they are.

    z = (x + shift) scale,    log det = sum of log scale

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density Estimation Using Real NVP, ICLR 2017. The scale is a
function of a network's output h as in D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from invconv.arrays.namespaces import Array, cast, is_half, namespace
from invconv.arrays.settings import finite_or_nan, is_number


def affine(x: Array, shift: Array, scale: Array) -> tuple[Array, Array]:
    """Return z = (x + shift) scale and the log-determinants, shape (B,)."""
    return (x + shift) * scale, sum_of_each(namespace(scale).log(in_full(scale)))


def inverse_affine(z: Array, shift: Array, scale: Array) -> tuple[Array, Array]:
    """Return x = z / scale - shift and the log-determinants of the inverse, shape (B,)."""
    return z / scale - shift, -sum_of_each(namespace(scale).log(in_full(scale)))


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


def in_full(x: Array) -> Array:
    """Return an array of a half type in float32, the dtype of its log-determinants, else as is."""
    return cast(x, namespace(x).float32) if is_half(x.dtype, x) else x


def sum_of_each(x: Array) -> Array:
    """Return the sum of each sample's numbers, shape (B,)."""
    return namespace(x).sum(x, axis=tuple(range(1, x.ndim)))
