"""Exponentials of correlations, e^M x, with derivatives of any order, by Taylor's series.

    e^M x = (e^(M/s))^s x,    e^(M/s) x = sum over n <= m of (M/s)^n x / n!

s is the least number with |M|/s <= 4; then no term of the series is larger than 11 |x|. m is the
least number with phi^(m+1) e^phi / (m+1)! <= eps, phi = |M|/s, which bounds the error of
truncation. The mean mu of M's diagonal is taken out first: e^M = e^mu e^(M - mu).

There are two kinds of derivatives, linear in all arguments but w, the taps of M = M(w):

    exponential       P(w; x, v_1 ... v_k) = D^k e^M [v_1, ..., v_k] x
    exponential_gram  Q(w; x, y, v_1 ... v_k) = the gradient by v of <y, P(w; x, v_1 ... v_k, v)>

The derivative of P by w in the direction v is P(...; v), and that of Q likewise, so the two are
closed under differentiation, forward and reverse. D^k e^M [v_1, ..., v_k] is a corner of the
exponential of the block matrix that has M on its diagonal and the directions beside it (N. J.
Higham, Functions of Matrices, 2008, section 3.2): a block for every set of directions. The block
matrix is a correlation, too, of 2^k C channels.

PyTorch runs this series. JAX runs its own, in loops, with the blocks and the numbers of terms from
here. Both follow the rules below.
"""

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    constant,
    namespace,
    ops_of,
    readable,
    recorded,
    size,
    to_float,
    to_numpy,
    total,
    zeros,
)
from invconv.arrays.registry import Primitive
from invconv.arrays.stencil import Offset
from invconv.kernels import maps
from invconv.kernels.frequencies.spectrum import SpectralProduct
from invconv.kernels.frequencies.waves import complex_dtype, fourier, turns
from invconv.kernels.primitives import Plan

# a family that is linear in its taps (T, C, C) at its ``offsets``; periodic if ``wrap`` is True
Correlation: TypeAlias = Any

LARGEST_STEP = 4.0  # norm of M/s
LARGEST = 4096.0  # the largest norm of M: a thousand steps; beyond it the result is NaN
ENTRIES = 2**21  # the most entries of e^M_hat(f), at all frequencies, to keep: 32 MB in complex128


class Counts(NamedTuple):
    """The steps s and terms m of a series; s is 0 if the norm is NaN or beyond `LARGEST`."""

    steps: int
    terms: int


Counted = Counts | None  # None if the terms are counted as the series runs


def taps_norm(w: Array) -> Array:
    """Return a bound of |M|_2, the smaller of the 1- and the infinity norm, as a 0-d array."""
    xp = namespace(w)
    entries = xp.sum(abs(w), axis=0)
    return xp.minimum(*(xp.max(xp.sum(entries, axis=axis)) for axis in (0, 1)))


@functools.lru_cache(maxsize=16)
def reaches(eps: float) -> tuple[float, ...]:
    """Return the largest norms phi for which 1, 2, ... terms suffice, while they are below 4."""
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


def counts_of(family: Correlation, w: Array) -> Counts:
    """Return the steps s and terms m of a correlation, from the values of its taps."""
    eps = float(namespace(w).finfo(w.dtype).eps)
    return counts_for(to_float(taps_norm(without_mean(family, w)[0])), eps)


def without_mean(family: Correlation, w: Array) -> tuple[Array, Array]:
    """Return the taps of M - mu, and mu, the mean of M's diagonal, from the tap at the pixel."""
    unit = constant(_unit(family.offsets, int(w.shape[1])), w, w.dtype)
    mean = total(w * unit) / w.shape[1]
    return w - mean * unit, mean


@functools.lru_cache(maxsize=64)
def _unit(offsets: tuple[Offset, ...], channels: int) -> np.ndarray[Any, Any]:
    """Return the taps of the identity."""
    taps = np.zeros((len(offsets), channels, channels))
    taps[offsets.index((0,) * len(offsets[0]))] = np.eye(channels)
    return taps


def block_taps(w: Array, directions: Sequence[Array]) -> Array:
    """Return the taps of the block matrix: one block for every set of directions, as bits."""
    if not directions:
        return w
    xp, blank, sets = namespace(w), namespace(w).zeros_like(w), range(2 ** len(directions))
    apart = {0: w} | {1 << j: direction for j, direction in enumerate(directions)}
    rows = [[apart.get(i ^ j, blank) if i >= j else blank for j in sets] for i in sets]
    return xp.concat([xp.concat(row, axis=2) for row in rows], axis=1)


def in_block(x: Array, blocks: int, block: int) -> Array:
    """Return images with x in one of several blocks of channels, and zeros in the others."""
    if blocks == 1:
        return x
    xp = namespace(x)
    blank = xp.zeros_like(x)  # split over devices as x is
    return xp.concat([x if i == block else blank for i in range(blocks)], axis=1)


def last_block(x: Array, blocks: int) -> Array:
    """Return the last of several blocks of channels."""
    return x[:, -(x.shape[1] // blocks) :, ...]


def diagonal_block(w_bar: Array, blocks: int) -> Array:
    """Return the sum of the diagonal blocks: the gradient by w from the one by `block_taps`."""
    if blocks == 1:
        return w_bar
    xp, (taps, channels, _) = namespace(w_bar), w_bar.shape
    apart = xp.reshape(w_bar, (taps, blocks, channels // blocks, blocks, channels // blocks))
    return sum(apart[:, i, :, i, :] for i in range(blocks))


@dataclass(frozen=True, eq=False)
class Series:
    """Taylor's series of e^M, or of its derivative in some directions.

    A step is z_1 of z_n = x + M z_(n+1) / n, z_(m+1) = x.
    """

    family: Correlation
    taps: Array  # shape (T, 2^k C, 2^k C): of (M - mu)/s, with v/s of k directions beside it
    scale: Array  # 0-d: e^(mu/s)
    blocks: int  # 2^k
    # m is larger by one for each direction: a derivative of the series has one term less
    counts: Counts

    def __call__(self, x: Array) -> Array:
        return last_block(self._points(in_block(x, self.blocks, 0))[-1], self.blocks)

    @functools.cached_property
    def _over(self) -> list[Array]:
        """The taps over n = 1, ..., m, computed together: quicker than between products."""
        return [self.taps / n for n in range(1, self.counts.terms + 1)]

    def _points(self, x: Array) -> list[Array]:
        """Return the images at which each step begins, and the one at which the last ends."""
        points = [x] if self.counts.steps else [x * math.nan]
        for _ in range(self.counts.steps):
            y = points[-1]
            for taps in reversed(self._over):
                y = points[-1] + maps.apply(self.family, taps, y)
            points.append(y * self.scale)
        return points

    def pull_back(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return Q(w; x, y, directions), and without directions the gradient by x."""
        x, bar = in_block(x, self.blocks, 0), in_block(y, self.blocks, self.blocks - 1)
        total = zeros(self.taps.shape, self.taps)
        if not self.counts.steps:
            total, bar = total * math.nan, bar * math.nan
        turned, over = self.family.transpose(), [self.family.adjoint(taps) for taps in self._over]
        for start in reversed(self._points(x)[:-1]):
            points = [start]
            for taps in reversed(self._over):
                points.append(start + maps.apply(self.family, taps, points[-1]))
            term = bar = bar * self.scale
            for n in range(1, self.counts.terms + 1):
                total += maps.gram(self.family, points[-1 - n], term) / n
                term = maps.apply(turned, over[n - 1], term)
                bar = bar + term
        return diagonal_block(total, self.blocks) / max(1, self.counts.steps), bar


def series(
    family: Correlation, w: Array, directions: Sequence[Array], counts: Counted, orders: int
) -> Series:
    """Return the series of e^M(w), with enough terms for ``orders`` derivatives."""
    xp = namespace(w)
    taps, mean = without_mean(family, w)
    if counts is None:
        counts = counts_for(to_float(taps_norm(taps)), float(xp.finfo(w.dtype).eps))
    taps, steps = block_taps(taps, directions), max(1, counts.steps)
    counts = Counts(counts.steps, counts.terms + orders)
    return Series(family, taps / steps, xp.exp(mean / steps), 2 ** len(directions), counts)


@partial(Primitive, on=1)
def exponential(
    family: Correlation, w: Array, x: Array, *directions: Array, counts: Counted = None
) -> Array:
    """Return P(w; x, directions), or e^M(w) x without directions; all but x are taps (T, C, C)."""
    return series(family, w, directions, counts, len(directions))(x)


@partial(Primitive, on=1)
def exponential_gram(
    family: Correlation, w: Array, x: Array, y: Array, *directions: Array, counts: Counted = None
) -> Array:
    """Return Q(w; x, y, directions), (T, C, C); without directions the gradient of <y, e^M x>."""
    return series(family, w, directions, counts, 1 + len(directions)).pull_back(x, y)[0]


@partial(Primitive, on=1)
def counted(family: Correlation, w: Array, kernel: Array, shape: Shape) -> tuple[Array, Counted]:
    """Return taps with their `Counts`; to count, the host may have to wait for a device.

    ``w`` are the taps of ``kernel`` on a grid. A library may remember a kernel's counts; then it
    returns NaN for taps that need more terms. Counts are None if a series counts as it runs.
    """
    return w, counts_of(family, w)


def exponential_vjp(
    family: Correlation, w: Array, x: Array, y_bar: Array, counts: Counted = None
) -> tuple[Array, Array]:
    """Return the cotangents of w and of x for y = e^M(w) x, from one pass if nothing is traced."""
    if counts is None or any(map(recorded, (w, x, y_bar))):
        w_bar, x_bar = (exponential_cotangent(family, (w, x), i, y_bar, counts) for i in (0, 1))
        return w_bar, x_bar
    return series(family, w, (), counts, 1).pull_back(x, y_bar)


def _tangent(
    linear: Callable[..., Array],
    family: Correlation,
    arrays: Sequence[Array],
    slot: int,
    tangent: Array,
    counts: Counted = None,
) -> Array:
    """Return the part of the tangent of P or Q that comes from a tangent of argument ``slot``."""
    arguments = [*arrays, tangent]
    if slot:
        arguments[slot] = arguments.pop()
    return linear(family, *arguments, counts=counts)


exponential_tangent = partial(_tangent, exponential)
gram_tangent = partial(_tangent, exponential_gram)


def exponential_cotangent(
    family: Correlation, arrays: Sequence[Array], slot: int, bar: Array, counts: Counted = None
) -> Array:
    """Return the cotangent of argument ``slot`` of P(w; x, ...)."""
    w, x, *directions = arrays
    if slot == 1:
        adjoint, turned = family.adjoint, family.transpose()
        return exponential(turned, adjoint(w), bar, *map(adjoint, directions), counts=counts)
    if slot:
        del directions[slot - 2]
    return exponential_gram(family, w, x, bar, *directions, counts=counts)


def gram_cotangent(
    family: Correlation, arrays: Sequence[Array], slot: int, bar: Array, counts: Counted = None
) -> Array:
    """Return the cotangent of argument ``slot`` of Q: of <y, P(w; x, v_1 ... v_k, bar)>."""
    w, x, y, *directions = arrays
    of_p = w, x, *directions, bar
    if slot == 2:
        return exponential(family, *of_p, counts=counts)
    return exponential_cotangent(family, of_p, slot - (slot > 2), y, counts)


@dataclass(frozen=True, eq=False)
class ExponentialSolver:
    """x = e^-M y."""

    family: Correlation
    taps: Array  # shape (T, C, C): the taps of -M
    counts: Counted  # None if they are chosen as the solve runs
    # the product with e^-K_hat(f) at every frequency of a circular grid, if it was computed
    product: SpectralProduct | None = None

    @staticmethod
    def of(family: Correlation, taps: Array, counts: Counted, shape: Shape) -> "ExponentialSolver":
        """Prepare a solve for the taps of -M, by frequencies if the host has their values."""
        entries = taps.shape[1] ** 2 * size(fourier(len(shape)).frequencies(shape))
        product, known = None, counts is not None and counts.steps > 0
        known = known and readable(taps) and not recorded(taps) and entries <= ENTRIES
        if family.wrap and known and not ops_of(taps).gathers_transforms:
            product = _exponential_product(family, taps, shape)
        return ExponentialSolver(family, taps, counts, product)

    @property
    def plan(self) -> Plan:
        if self.product is not None:
            return Plan("spectral", per_frequency="product with exp(-K_hat)")
        counts, name = self.counts, "Taylor series of exp(-M)"
        return Plan(name, times=counts.steps, terms=counts.terms) if counts else Plan(name)

    def as_numpy(self) -> SpectralProduct | None:
        """Return the spectral product on NumPy arrays, or None if the solve is a series."""
        return None if self.product is None else self.product.as_numpy()

    def __call__(self, y: Array) -> Array:
        if self.product is None or not readable(y) or recorded(y):
            return exponential(self.family, self.taps, y, counts=self.counts)
        return self.product(y)


def _exponential_product(family: Correlation, taps: Array, shape: Shape) -> SpectralProduct | None:
    """Return the product with e^M_hat(f) for taps (T, C, C), by scaling and squaring in float64.

    Eigenvalues would not do, since M_hat(f) may be defective, nor SciPy's `expm`, which before 1.17
    takes matrices one by one. None if a matrix may overflow: products lose a complex infinity.
    """
    values = to_numpy(taps)
    phases, basis = np.ones((len(values), 1)), fourier(len(shape))
    for axis, (n, count) in enumerate(zip(shape, basis.frequencies(shape), strict=True)):
        steps = np.outer([offset[axis] for offset in family.offsets], np.arange(count))
        phases = (phases[:, :, None] * turns(steps, n)[:, None, :]).reshape(len(values), -1)
    matrices = np.einsum("tf,tij->fij", phases, values.astype(np.float64), optimize=True)
    norm = float(np.abs(matrices).sum(axis=2).max())
    if norm > math.log(float(namespace(taps).finfo(taps.dtype).max)):
        return None
    squarings = max(0, math.ceil(math.log2(2 * norm))) if norm else 0
    small, unit = matrices / 2.0**squarings, np.eye(values.shape[1])
    result = unit + 0 * small
    for n in range(counts_for(0.5, 2.0**-52).terms, 0, -1):
        result = unit + small @ result / n
    for _ in range(squarings):
        result = result @ result
    return SpectralProduct(constant(result, taps, complex_dtype(taps)), basis, shape)
