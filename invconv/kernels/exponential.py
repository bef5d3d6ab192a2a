"""Exponentials of correlations, e^M x, with derivatives of any order.

Of the derivatives there are two kinds, linear in all arguments but w, the taps of M = M(w):

    exponential       P(w; x, v_1 ... v_k) = D^k e^M [v_1, ..., v_k] x
    exponential_gram  Q(w; x, y, v_1 ... v_k) = the gradient by v of <y, P(w; x, v_1 ... v_k, v)>

The derivative of P by w in the direction v is P(...; v), and that of Q likewise, so the two are
closed under differentiation, forward and reverse. `kernels.series` sums them up.

PyTorch and JAX run them their own way, by the rules below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from invconv.arrays.array_ops import ops_of
from invconv.arrays.namespaces import Array, Shape, constant, readable, recorded, size, to_numpy
from invconv.arrays.registry import Primitive
from invconv.kernels.frequencies.basis import fourier
from invconv.kernels.frequencies.spectrum import SpectralProduct
from invconv.kernels.frequencies.waves import complex_dtype, turns
from invconv.kernels.primitives import Plan
from invconv.kernels.series import Correlation, Counted, counts_for, counts_of, series


@partial(Primitive, on=1)
def exponential(
    family: Correlation, w: Array, x: Array, *directions: Array, counts: Counted = None
) -> Array:
    """Return P(w; x, directions), which is e^M(w) x without directions.

    ``w`` and the directions are taps (T, C, C); ``counts`` is the result of `counts_of`, if it is
    known.
    """
    return series(family, w, directions, counts)(x)


@partial(Primitive, on=1)
def exponential_gram(
    family: Correlation, w: Array, x: Array, y: Array, *directions: Array, counts: Counted = None
) -> Array:
    """Return Q(w; x, y, directions), (T, C, C); with none it is the gradient of <y, e^M(w) x>."""
    taylor = series(family, w, directions, counts, orders=1 + len(directions))
    return taylor.pull_back(x, y)[0]


@partial(Primitive, on=1)
def counted(family: Correlation, w: Array, kernel: Array, shape: Shape) -> tuple[Array, Counted]:
    """Return taps with their `Counts`; to count, the host may have to wait for a device.

    ``w`` are the taps of ``kernel`` on a grid. A library may remember a kernel's counts; then it
    returns NaN for taps that need more terms. None if the series counts as it runs, or is traced.
    """
    return w, counts_of(family, w)


def exponential_vjp(
    family: Correlation, w: Array, x: Array, y_bar: Array, counts: Counted = None
) -> tuple[Array, Array]:
    """Return the cotangents of w and of x for y = e^M(w) x, from one pass if nothing is traced."""
    if counts is None or any(map(recorded, (w, x, y_bar))):
        w_bar, x_bar = (exponential_cotangent(family, (w, x), i, y_bar, counts) for i in (0, 1))
        return w_bar, x_bar
    return series(family, w, (), counts, orders=1).pull_back(x, y_bar)


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
    if slot > 1:
        del directions[slot - 2]
    return exponential_gram(family, w, x, bar, *directions, counts=counts)


def gram_cotangent(
    family: Correlation, arrays: Sequence[Array], slot: int, bar: Array, counts: Counted = None
) -> Array:
    """Return the cotangent of argument ``slot`` of Q(w; x, y, ...).

    It is a cotangent of <bar, Q(w; x, y, v_1 ... v_k)> = <y, P(w; x, v_1 ... v_k, bar)>.
    """
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
    def of(family: Correlation, taps: Array, counts: Counted, shape: Shape) -> ExponentialSolver:
        """Prepare a solve for the taps of -M, by frequencies if the host has their values."""
        entries = taps.shape[1] ** 2 * size(fourier(len(shape)).frequencies(shape))
        product, known = None, counts is not None and counts.steps > 0
        known = known and readable(taps) and not recorded(taps)
        if family.wrap and entries <= _ENTRIES and known and not ops_of(taps).gathers_transforms:
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


_ENTRIES = 2**21  # of all matrices together, at most, for them to be kept: 32 MB in complex128


def _exponential_product(family: Correlation, taps: Array, shape: Shape) -> SpectralProduct:
    """Return the product with e^M_hat(f) for taps (T, C, C), by scaling and squaring.

    Eigenvalues would not do, since M_hat(f) may be defective. The matrices are in float64.
    """
    values = to_numpy(taps)
    phases, basis = np.ones((len(values), 1)), fourier(len(shape))
    for axis, (n, count) in enumerate(zip(shape, basis.frequencies(shape), strict=True)):
        steps = np.outer([offset[axis] for offset in family.offsets], np.arange(count))
        phases = (phases[:, :, None] * turns(steps, n)[:, None, :]).reshape(len(values), -1)
    matrices = np.einsum("tf,tij->fij", phases, values.astype(np.float64), optimize=True)
    norm = float(np.abs(matrices).sum(axis=2).max())
    squarings = max(0, math.ceil(math.log2(2 * norm))) if norm else 0
    small, unit = matrices / 2.0**squarings, np.eye(values.shape[1])
    result = unit + 0 * small
    for n in range(counts_for(0.5, 2.0**-52).terms, 0, -1):
        result = unit + small @ result / n
    for _ in range(squarings):
        result = result @ result
    return SpectralProduct(constant(result, taps, complex_dtype(taps)), basis, shape)
