"""A convolution as a stencil: a list of offsets, each with a C x C matrix.

Masks, directions and dilation are ways to list offsets.
"""

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, namespace, size, zeros

Offset = tuple[int, ...]


def dot(a: Iterable[int], b: Iterable[int]) -> int:
    """Return the sum of the products of two sequences, up to the end of the shorter one."""
    return sum(map(operator.mul, a, b))


@dataclass(frozen=True, eq=False)
class Stencil:
    """y[p] = sum over t of taps[t] x[p + offsets[t]]."""

    offsets: tuple[Offset, ...]  # in pixels, one integer per spatial axis
    taps: Array  # shape (T, C, C): the matrix of each offset


@dataclass(frozen=True)
class Sweep:
    """The pixels that a causal convolution reads, and a solve's order on a grid; no values.

    y[p] = D x[p] + sum over t of taps[t] x[p + offsets[t]],    zero outside the grid
    offsets[t] = -direction dilation reach[t]
    """

    reach: tuple[Offset, ...]  # in taps; the first non-zero entry of each is positive
    direction: tuple[int, ...]
    dilation: tuple[int, ...]
    lower: bool  # whether D is lower triangular
    shape: Shape = ()  # the grid, if it is known

    @functools.lru_cache(maxsize=256)  # noqa: B019  with its offsets and its slope
    def on(self, shape: Shape) -> "Sweep":
        """Return the same sweep on a grid."""
        return replace(self, shape=shape)

    def transpose(self) -> "Sweep":
        return replace(self, direction=tuple(-s for s in self.direction), lower=not self.lower)

    @derived
    def offsets(self) -> tuple[Offset, ...]:
        """Return the offsets in pixels of every tap but D's."""
        back = [-step for step in map(operator.mul, self.direction, self.dilation)]
        return tuple(tuple(map(operator.mul, back, each)) for each in self.reach)

    @derived
    def slope(self) -> tuple[int, ...]:
        """Return w with w . reach[t] > 0 for every t; not always the least such w."""
        ndim = len(self.direction)
        back = [max([0, *(-o[axis] for o in self.reach)]) for axis in range(ndim)]
        slope = [1] * ndim
        for axis in reversed(range(ndim - 1)):
            slope[axis] = 1 + dot(slope[axis + 1 :], back[axis + 1 :])
        return tuple(slope)

    @derived
    def lag(self) -> int:
        """Return the least number of levels by which a row lags behind the row above it.

        Pixel j of row l is on level j + lag l; a tap in its plane, of the last two axes, reads
        pixels of earlier levels alone.
        """
        above = [o for o in self.reach if not any(o[:-2]) and o[-2] > 0]
        return max([0, *(-((o[-1] - 1) // o[-2]) for o in above)])

    @property
    def levels(self) -> int:
        """The number of wavefronts on the grid: `kernels.wavefront`."""
        last = ((n - 1) // d for n, d in zip(self.shape, self.dilation, strict=True))
        return 1 + dot(self.slope, last)


@dataclass(frozen=True, eq=False)
class CausalStencil:
    """A causal convolution: the pixel itself is the first tap, with a triangular matrix D."""

    taps: Array  # shape (1 + T, C, C)
    sweep: Sweep  # over the other taps

    @property
    def diagonal(self) -> Array:
        """D, shape (C, C)."""
        return self.taps[0, ...]

    @property
    def others(self) -> Array:
        """All taps but D, shape (T, C, C)."""
        return self.taps[1:, ...]

    def within(self, shape: Shape) -> "CausalStencil":
        """Return the same map on a grid, without taps that read outside it from every pixel."""
        kept, known, taps = reaching(self.sweep.offsets, shape), self.sweep, self.taps
        if len(kept) < len(known.reach):
            parts = [taps[t : t + 1, ...] for t in (0, *(1 + t for t in kept))]
            taps = namespace(taps).concat(parts)
        dilation = tuple(map(min, known.dilation, shape))
        reach = tuple(known.reach[t] for t in kept)
        sweep = Sweep(reach, known.direction, dilation, known.lower, tuple(shape))
        return CausalStencil(taps, sweep)

    def stencil(self) -> Stencil:
        """Return the whole convolution."""
        return Stencil(((0,) * len(self.sweep.direction), *self.sweep.offsets), self.taps)


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
    """Turn a kernel (C, C, *k) into taps (T, C, C), from the flat position ``first`` on."""
    xp = namespace(kernel)
    c_out, c_in, *kernel_size = kernel.shape
    taps = xp.permute_dims(xp.reshape(kernel, (c_out, c_in, size(kernel_size))), (2, 0, 1))
    return taps[first:, ...] if first else taps


def kernel_of(taps: Array, kernel_size: Shape) -> Array:
    """Undo `taps_of`; taps that were left out are zero."""
    xp = namespace(taps)
    count, c_out, c_in = taps.shape
    if missing := size(kernel_size) - count:
        taps = xp.concat([zeros((missing, c_out, c_in), taps), taps])
    return xp.reshape(xp.permute_dims(taps, (1, 2, 0)), (c_out, c_in, *kernel_size))


def at_end(i: Any, n: int) -> Any:
    """Tell which of n pixels are at an end, where D is 1/2 in K^T = D K D^-1 between mirrors."""
    return (i == 0) | (i == n - 1)


def seen(border: str, i: Any, n: int) -> tuple[Any, Any]:
    """Return which pixel each position repeats, and its sign (D^-1 for a transposed mirror)."""
    one = 1 + 0 * i
    if border == "periodic":
        return i % n, one
    if border in ("mirror", "transposed mirror"):
        period = 2 * n - 2 or 1
        i = i % period
        i = i + (i >= n) * (period - 2 * i)
        return i, one if border == "mirror" else one + at_end(i, n)
    if border == "symmetric":
        i = i % (2 * n)
        return i + (i >= n) * (2 * n - 1 - 2 * i), one
    if border == "zero":
        return i % n, one * (i >= 0) * (i < n)
    i = i % (2 * n + 2)
    beyond = i > n
    return (i + beyond * (2 * n - 2 * i)) % n, (one - 2 * beyond) * (i != n) * (i != 2 * n + 1)
