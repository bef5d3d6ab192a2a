"""Solving an autoregressive convolution by wavefronts (the paper's fast inversion, section 3.1).

Pixel p depends on the pixels p + offset that come before it. Number the pixels by

    level(p) = w . (p // dilation)     with w . o > 0 for every offset o in tap units,

counted along the direction of the convolution. The pixels of one level do not depend on each
other, and since the level is linear, all pixels that a tap reads for one level lie in one earlier
level. So a solve is one matrix product and one triangular solve per level, for corner and
raster masks, any direction, dilation and number of axes alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    identity,
    namespace,
    readable,
    size,
    to_numpy,
    zeros,
)
from invconv.arrays.registry import Primitive
from invconv.arrays.stencil import Offset, Stencil, reaching
from invconv.kernels.order import INVERSE_LIMIT
from invconv.kernels.primitives import from_pixel_rows, matmul, pixel_rows, triangular_solve
from invconv.kernels.solver import Solver

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class CausalStencil:
    """y[p] = D x[p] + sum over t of taps[t] x[p - direction dilation o_t], zero outside."""

    diagonal: Array  # shape (C, C): D, triangular
    lower: bool  # whether D is lower triangular
    taps: Array  # shape (T, C, C)
    reach: tuple[Offset, ...]  # o_t, in taps; the first non-zero entry of each is positive
    direction: tuple[int, ...]
    dilation: tuple[int, ...]
    slope: tuple[int, ...]  # w, with w . o_t > 0 for every t.

    @property
    def offsets(self) -> tuple[Offset, ...]:
        """The offsets in pixels of every tap but D's."""
        return tuple(
            tuple(-s * d * o for s, d, o in zip(self.direction, self.dilation, reach, strict=True))
            for reach in self.reach
        )

    def within(self, shape: Shape) -> CausalStencil:
        """Return the same map on a grid, without taps that read outside it from every pixel.

        A dilation longer than the grid becomes as long as the grid.
        """
        kept = self.only(reaching(self.offsets, shape))
        dilation = tuple(min(d, n) for d, n in zip(self.dilation, shape, strict=True))
        return replace(kept, dilation=dilation, slope=least_slope(kept.reach, len(shape)))

    def only(self, kept: Sequence[int]) -> CausalStencil:
        """Return the stencil with some of its taps."""
        taps = [self.taps[t : t + 1, ...] for t in kept]
        return replace(
            self,
            taps=namespace(self.taps).concat(taps, axis=0) if taps else self.taps[:0, ...],
            reach=tuple(self.reach[t] for t in kept),
        )

    def stencil(self) -> Stencil:
        """Return the whole convolution, D first."""
        here = (0,) * len(self.direction)
        taps = namespace(self.taps).concat([self.diagonal[None, ...], self.taps], axis=0)
        return Stencil((here, *self.offsets), taps)


def least_slope(reach: Sequence[Offset], ndim: int) -> tuple[int, ...]:
    """Return w with w . o > 0 for all offsets; the first nonzero entry of each is positive."""
    back = [max([0, *(-o[axis] for o in reach)]) for axis in range(ndim)]
    slope = [1] * ndim
    for axis in reversed(range(ndim - 1)):
        later = zip(slope[axis + 1 :], back[axis + 1 :], strict=True)
        slope[axis] = 1 + sum(w * b for w, b in later)
    return tuple(slope)


@Primitive
def causal_solver(stencil: CausalStencil, shape: Shape) -> Solver:
    """Return the map y -> x, both (B, C, *shape), that solves ``stencil.stencil()`` x = y.

    The solver has a ``plan``, a dict that says how it works, and can be pickled.
    """
    return WavefrontSolver(stencil, inverse_at_the_pixel(stencil), shape)


def inverse_at_the_pixel(stencil: CausalStencil) -> Array | None:
    """Return D^-1 if a product with it is as accurate as a triangular solve, else None."""
    return stable_inverse(
        stencil.diagonal,
        lambda d: triangular_solve(d, identity(d.shape[0], d), lower=stencil.lower),
    )


def stable_inverse(matrix: Array, invert: Callable[[Array], Array] | None = None) -> Array | None:
    """Return A^-1 if a product with it is as accurate as a solve, else None.

    The matrix is block triangular; the blocks on its diagonal are triangular. ``invert`` inverts it
    faster than the library's ``inv``.
    """
    if not readable(matrix):
        return None
    # |A|_1 max 1/|a_ii| <= |A|_1 |A^-1|_1, since 1/a_ii are on the diagonal of A^-1. If that bound
    # is too large, as for a zero pivot or an inf, do not call the library's inverse: it might
    # raise.
    values = np.abs(to_numpy(matrix))
    norm = _largest_sum(values)
    if not norm < INVERSE_LIMIT * np.minimum.reduce(values.diagonal()):
        return None
    inverse = (invert or namespace(matrix).linalg.inv)(matrix)
    inverse_norm = _largest_sum(np.abs(to_numpy(inverse)))
    return inverse if norm * inverse_norm <= INVERSE_LIMIT else None


def _largest_sum(values: np.ndarray[Any, Any]) -> Any:
    """Return the largest column sum; `ufunc.reduce` takes half the time of methods if few."""
    return np.maximum.reduce(np.add.reduce(values, axis=0))


def inverse_keeps_accuracy(matrix: Array, inverse: Array) -> Array:
    """Tell, as a 0-d bool array, whether a product with D^-1 is as accurate as a solve with D."""
    xp = namespace(matrix)
    norm, inverse_norm = (xp.max(xp.sum(xp.abs(m), axis=0)) for m in (matrix, inverse))
    return norm * inverse_norm <= INVERSE_LIMIT


@dataclass(frozen=True, eq=False)
class WavefrontSolver:
    """A solve level after level: x = D^-1 (y - sum of taps[t] x at earlier levels).

    If ``inverse``, D^-1, is given, y and the taps are multiplied by it at the start.
    """

    causal: CausalStencil
    inverse: Array | None
    shape: Shape

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        corner = "triangular solve" if self.inverse is None else "cached inverse"
        levels = len(self._schedule().fronts)
        return {"method": "wavefront", "at the pixel": corner, "levels": levels}

    def _schedule(self) -> Schedule:
        c = self.causal
        return schedule(self.shape, c.reach, c.direction, c.dilation, c.slope)

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        xp = namespace(y)
        batch, channels = y.shape[:2]
        order = self._schedule()
        rows, taps = pixel_rows(y), self.causal.taps
        if self.inverse is not None:
            rows, taps = matmul(self.inverse, rows), matmul(self.inverse, taps)
        rows = xp.permute_dims(xp.reshape(rows, (channels, batch, size(self.shape))), (0, 2, 1))
        # (C, pixels by level, B): the pixels of a front are contiguous
        rows = xp.take(rows, constant(order.pixels, y), axis=1)
        blank = zeros((channels, 1, batch), y)
        done: list[Array] = []  # of each level, (C, its pixels and a blank one, B)
        for front in order.fronts:
            rhs = rows[:, front.start : front.stop, :]
            pixels = front.stop - front.start
            rhs = xp.reshape(rhs, (channels, pixels * batch))
            if front.sources:
                weights = xp.concat([taps[s.tap, ...] for s in front.sources], axis=1)
                earlier = xp.concat(
                    [xp.take(done[s.level], constant(s.places, y), axis=1) for s in front.sources],
                    axis=0,
                )
                earlier = xp.reshape(earlier, (len(front.sources) * channels, pixels * batch))
                rhs = rhs - matmul(weights, earlier)
            x = rhs
            if self.inverse is None:
                x = triangular_solve(self.causal.diagonal, rhs, lower=self.causal.lower)
            done.append(xp.concat([xp.reshape(x, (channels, pixels, batch)), blank], axis=1))
        levels = xp.concat([x[:, :-1, :] for x in done], axis=1)
        x = xp.take(levels, constant(order.places, y), axis=1)
        x = xp.reshape(xp.permute_dims(x, (0, 2, 1)), (channels, batch * size(self.shape)))
        return from_pixel_rows(x, y.shape)


@dataclass(frozen=True, eq=False)
class Source:
    """The ``places`` in an earlier ``level`` that one tap reads for one front; its end is blank."""

    tap: int
    level: int
    places: Ints


@dataclass(frozen=True, eq=False)
class Front:
    """The pixels start..stop of the level order, and the earlier pixels that they read."""

    start: int
    stop: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The order of a solve; it depends on shapes and offsets only."""

    pixels: Ints  # shape (N,): flat indices of the pixels, level by level
    places: Ints  # shape (N,): the position of each pixel in that order
    fronts: tuple[Front, ...]


@functools.lru_cache(maxsize=16)
def schedule(
    shape: Shape,
    reach: tuple[Offset, ...],
    direction: tuple[int, ...],
    dilation: tuple[int, ...],
    slope: tuple[int, ...],
) -> Schedule:
    """Return the wavefronts of a grid; the parameters are those of `CausalStencil`."""
    grid = np.indices(shape).reshape(len(shape), -1)
    along = [p if s > 0 else n - 1 - p for p, s, n in zip(grid, direction, shape, strict=True)]
    level = np.sum([w * (p // d) for w, p, d in zip(slope, along, dilation, strict=True)], axis=0)
    pixels = np.argsort(level, kind="stable")
    levels, starts = np.unique(level[pixels], return_index=True)
    lengths = np.diff([*starts, len(pixels)])
    places = np.empty_like(pixels)
    places[pixels] = np.arange(len(pixels))
    sources: list[list[Source]] = [[] for _ in levels]
    for tap, o in enumerate(reach):
        drop = sum(w * r for w, r in zip(slope, o, strict=True))
        earlier = np.searchsorted(levels, levels - drop)  # the front that each front reads
        read = [p[pixels] - d * r for p, d, r in zip(along, dilation, o, strict=True)]
        inside = np.all([(r >= 0) & (r < n) for r, n in zip(read, shape, strict=True)], axis=0)
        there = [
            np.where(inside, r if s > 0 else n - 1 - r, 0)
            for r, s, n in zip(read, direction, shape, strict=True)
        ]
        place = places[np.ravel_multi_index(there, shape)] - np.repeat(starts[earlier], lengths)
        place = np.where(inside, place, np.repeat(lengths[earlier], lengths))
        for i in np.flatnonzero(np.add.reduceat(inside, starts)):
            mine = place[starts[i] : starts[i] + lengths[i]]
            sources[i].append(Source(tap, int(earlier[i]), mine))
    fronts = tuple(
        Front(int(start), int(start + length), tuple(of_front))
        for start, length, of_front in zip(starts, lengths, sources, strict=True)
    )
    return Schedule(pixels, places, fronts)
