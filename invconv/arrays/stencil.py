"""A convolution as a stencil: a list of offsets, each with a C x C matrix.

Masks, directions and dilation are ways to list offsets.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from invconv.arrays.namespaces import Array, Shape, namespace, size, zeros

Offset = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Stencil:
    """y[p] = sum over t of taps[t] x[p + offsets[t]]."""

    offsets: tuple[Offset, ...]  # in pixels, one integer per spatial axis
    taps: Array  # shape (T, C, C): the matrix of each offset


class CausalGrid(NamedTuple):
    """The settings of a causal stencil (`kernels.wavefront.CausalStencil`) on a grid."""

    shape: Shape  # the grid
    reach: tuple[Offset, ...]
    direction: tuple[int, ...]
    dilation: tuple[int, ...]
    lower: bool


def reaching(offsets: Sequence[Offset], shape: Shape) -> list[int]:
    """Return the positions of the offsets that connect two pixels of the grid."""
    return [
        t
        for t, offset in enumerate(offsets)
        if all(abs(o) < n for o, n in zip(offset, shape, strict=True))
    ]


def tap_indices(kernel_size: Shape) -> list[Offset]:
    """Return the index of every tap of a kernel, last axis fastest."""
    return list(itertools.product(*(range(k) for k in kernel_size)))


def taps_of(kernel: Array, first: int = 0) -> Array:
    """Turn a kernel (C, C, *k) into taps (T, C, C), those from a flat position on."""
    xp = namespace(kernel)
    c_out, c_in, *kernel_size = kernel.shape
    taps = xp.permute_dims(xp.reshape(kernel, (c_out, c_in, size(kernel_size))), (2, 0, 1))
    return taps[first:, ...] if first else taps


def kernel_of(taps: Array, kernel_size: Shape) -> Array:
    """Undo `taps_of`; taps that were left out are zero."""
    xp = namespace(taps)
    count, c_out, c_in = taps.shape
    if missing := size(kernel_size) - count:
        taps = xp.concat([zeros((missing, c_out, c_in), taps), taps], axis=0)
    return xp.reshape(xp.permute_dims(taps, (1, 2, 0)), (c_out, c_in, *kernel_size))


def seen(border: str, i: Any, n: int) -> tuple[Any, Any]:
    """Return the pixels of an axis of n that positions i repeat, and their signs: +1, -1, or 0."""
    one = 1 + 0 * i
    if border == "periodic":
        return i % n, one
    if border == "symmetric":
        i = i % (2 * n)
        return i + (i >= n) * (2 * n - 1 - 2 * i), one
    if border == "zero":
        return i % n, one * (i >= 0) * (i < n)
    i = i % (2 * n + 2)
    beyond = i > n
    return (i + beyond * (2 * n - 2 * i)) % n, (one - 2 * beyond) * (i != n) * (i != 2 * n + 1)
