"""Taylor's series of e^M for a correlation M, and of its derivatives in given directions.

    e^M x = (e^(M/s))^s x,    e^(M/s) x = sum over n <= m of (M/s)^n x / n!

s is the least number with |M|/s <= 4; then no term of the series is larger than 11 |x|. m is the
least number with phi^(m+1) e^phi / (m+1)! <= eps, phi = |M|/s, which bounds the error of
truncation. The mean mu of M's diagonal is taken out first: e^M = e^mu e^(M - mu).

D^k e^M [v_1, ..., v_k] is a corner of the exponential of the block matrix that has M on its
diagonal and the directions beside it (N. J. Higham, Functions of Matrices, 2008, section 3.2).
There is one block for every set of directions.

PyTorch and JAX take the number of terms from here.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from invconv.arrays.namespaces import Array, constant, namespace, to_float, total, zeros
from invconv.arrays.registry import Primitive
from invconv.arrays.stencil import Offset
from invconv.kernels.families import LinearFamily, StencilFamily

LARGEST_STEP = 4.0  # norm of M/s
LARGEST = 4096.0  # norm of M at most: a thousand steps; beyond it the result is NaN

Blocks = list[Array | None]  # indexed by the set of directions, as bits; None is zero


class Counts(NamedTuple):
    """The steps s and terms m of a series; s is 0 if the norm is NaN or beyond `LARGEST`."""

    steps: int
    terms: int


class Kernels(Protocol):
    """Functions that run a correlation: `invconv.kernels.maps`, or a library's own."""

    apply: Callable[[LinearFamily, Array, Array], Array]
    horner: Callable[[LinearFamily, Sequence[Array], Array, bool], list[Array]]
    gram: Callable[[LinearFamily, Array, Array], Array]


def norm_bound(w: Array) -> Array:
    """Return a bound of |M|_2, the smaller of the 1- and the infinity norm, as a 0-d array."""
    xp = namespace(w)
    entries = xp.sum(abs(w), axis=0)
    norms = [xp.max(xp.sum(entries, axis=axis)) for axis in (0, 1)]
    return xp.minimum(*norms)


@functools.lru_cache(maxsize=16)
def reaches(eps: float) -> tuple[float, ...]:
    """Return the largest norms phi <= 4 for which 1, 2, ... terms suffice; not that of the last."""
    norms: list[float] = []
    while True:
        order = len(norms) + 2
        low, high = 0.0, 2 * LARGEST_STEP
        for _ in range(60):
            phi = (low + high) / 2
            left_out = order * math.log(phi) + phi - math.lgamma(order + 1)
            low, high = (low, phi) if left_out > math.log(eps) else (phi, high)
        if low >= LARGEST_STEP:
            return tuple(norms)
        norms.append(low)


def counts_for(norm: float, eps: float) -> Counts:
    """Return the steps s and terms m for a norm of M."""
    if not norm <= LARGEST:
        return Counts(0, 0)
    steps = max(1, math.ceil(norm / LARGEST_STEP))
    return Counts(steps, 1 + bisect.bisect_left(reaches(eps), norm / steps))


def largest_norm(counts: Counts, eps: float) -> float:
    """Return the largest norm of M for which s steps of m terms suffice, plus a thousandth."""
    if not counts.steps:
        return math.inf  # the result is NaN
    most = (*reaches(eps), LARGEST_STEP)[counts.terms - 1]
    return 1.001 * counts.steps * most


def counts_of(family: StencilFamily, w: Array) -> Counts:
    """Return the steps s and terms m of a correlation, from the values of its taps."""
    eps = float(namespace(w).finfo(w.dtype).eps)
    return counts_for(to_float(norm_bound(without_mean(family, w)[0])), eps)


def _without_mean(family: StencilFamily, w: Array) -> tuple[Array, Array]:
    """Return the taps of M - mu, and mu, the mean of M's diagonal, from the tap at the pixel."""
    unit = constant(_unit(family.offsets, int(w.shape[1])), w, w.dtype)
    mean = total(w * unit) / w.shape[1]
    return w - mean * unit, mean


without_mean = Primitive(_without_mean, "without_mean", on=1)


@functools.lru_cache(maxsize=64)
def _unit(offsets: tuple[Offset, ...], channels: int) -> np.ndarray[Any, Any]:
    """Return the taps of the identity; all are zero if no offset is the pixel itself."""
    taps = np.zeros((len(offsets), channels, channels))
    here = (0,) * len(offsets[0])
    if here in offsets:
        taps[offsets.index(here)] = np.eye(channels)
    return taps


@dataclass(frozen=True, eq=False)
class Series:
    """Taylor's series of e^M, or of its derivative in some directions.

    Attributes
    ----------
    kernels : Kernels
    family : StencilFamily
    taps : array, shape (T, C, C)
        The taps of (M - mu)/s.
    scale : 0-d array
        e^(mu/s).
    directions : sequence of array
        v/s of each direction v.
    counts : Counts
        m is larger by one for each direction: a derivative of the series has one term less.
    """

    kernels: Kernels
    family: StencilFamily
    taps: Array
    scale: Array
    directions: Sequence[Array]
    counts: Counts

    def __call__(self, x: Array) -> Array:
        """Return P(w; x, directions)."""
        result = self._inputs(x)[-1][-1]
        return zeros(x.shape, x) if result is None else result

    @functools.cached_property
    def _over(self) -> list[Array]:
        """The taps over n = 1, ..., m, computed together: quicker than between products."""
        return [self.taps / n for n in range(1, self.counts.terms + 1)]

    def _inputs(self, x: Array) -> list[Blocks]:
        """Return the blocks at the start of each step, and at the end of the last one."""
        blocks: Blocks = [None] * 2 ** len(self.directions)
        blocks[0] = x
        if not self.counts.steps:
            return [[x * math.nan] * len(blocks)]
        points = [blocks]
        for _ in range(self.counts.steps):
            blocks = self._horner(points[-1])[-1]
            for block in blocks:
                if block is not None:
                    block *= self.scale  # in place: no other name refers to it
            points.append(blocks)
        return points

    def _scaled(self, blocks: Blocks) -> Blocks:
        return [None if block is None else block * self.scale for block in blocks]

    def _horner(self, blocks: Blocks) -> list[Blocks]:
        """Return z_(m+1), ..., z_1 of z_n = x + M z_(n+1) / n, z_(m+1) = x; z_1 is the sum.

        Unless ``_keeps`` is set, intermediate ones may be missing.
        """
        points = [blocks]
        if not self.directions:
            sums = self.kernels.horner(self.family, self._over, blocks[0], self._keeps)
            return points + [[z] for z in sums]
        for n in range(self.counts.terms, 0, -1):
            pairs = zip(self._apply(points[-1], n), blocks, strict=True)
            points.append([_sum(product, block) for product, block in pairs])
        return points

    _keeps = False

    def _apply(self, blocks: Blocks, n: int) -> Blocks:
        """Return the block matrix, divided by n, times blocks."""
        taps = self._over[n - 1]
        products = [self._times(taps, block) for block in blocks]
        for j, direction in enumerate(self.directions):
            for i, block in enumerate(blocks):
                if not i >> j & 1 and block is not None:
                    more = self._times(direction / n, block)
                    products[i | 1 << j] = _sum(products[i | 1 << j], more)
        return products

    def _times(self, taps: Array, block: Array | None) -> Array | None:
        return None if block is None else self.kernels.apply(self.family, taps, block)

    def pull_back(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return Q(w; x, y, directions), and the gradient of <y, P(w; x, directions)> by x."""
        keeping = _Keeping(**{f.name: getattr(self, f.name) for f in fields(self)})
        back = self._transposed()
        total = zeros(self.taps.shape, self.taps)
        if not self.counts.steps:
            return total * math.nan, x * math.nan
        bars: Blocks = [None] * 2 ** len(self.directions)
        bars[0] = y  # blocks of the transpose, indexed by the directions that are still to come
        for blocks in reversed(self._inputs(x)[:-1]):
            points = keeping._horner(blocks)
            term = bars = self._scaled(bars)
            for n in range(1, self.counts.terms + 1):
                total = _sum(total, self._gram(points[-1 - n], term, n))
                term = back._apply(term, n)
                bars = [_sum(a, b, fresh=False) for a, b in zip(bars, term, strict=True)]
        x_bar = bars[-1]
        return total / self.counts.steps, zeros(x.shape, x) if x_bar is None else x_bar

    def _transposed(self) -> Series:
        adjoint = self.family.adjoint
        turned = [adjoint(v) for v in self.directions]
        family = self.family.transpose()
        return replace(self, family=family, taps=adjoint(self.taps), directions=turned)

    def _gram(self, blocks: Blocks, bars: Blocks, n: int) -> Array | None:
        total = None
        for block, bar in zip(blocks, reversed(bars), strict=True):
            if block is not None and bar is not None:
                total = _sum(total, self.kernels.gram(self.family, block, bar))
        return None if total is None else total / n


class _Keeping(Series):
    """A series that keeps the intermediate sums, which its derivative needs."""

    _keeps = True


def series(
    kernels: Any,
    family: StencilFamily,
    w: Array,
    directions: Sequence[Array],
    counts: Counts | None = None,
    orders: int | None = None,
) -> Series:
    """Return the series of e^M(w), with terms enough for ``orders`` derivatives."""
    xp = namespace(w)
    orders = len(directions) if orders is None else orders
    taps, mean = without_mean(family, w)
    if counts is None:
        counts = counts_for(to_float(norm_bound(taps)), float(xp.finfo(w.dtype).eps))
    steps = max(1, counts.steps)
    if steps > 1:
        taps, mean, directions = taps / steps, mean / steps, [v / steps for v in directions]
    counts = Counts(counts.steps, counts.terms + orders)
    return Series(kernels, family, taps, xp.exp(mean), directions, counts)


def _sum(a: Array | None, b: Array | None, fresh: bool = True) -> Array | None:
    """Return a + b, written over a if a is ``fresh``: no other name refers to it."""
    if a is None or b is None:
        return b if a is None else a
    if fresh:
        a += b
        return a
    return a + b
