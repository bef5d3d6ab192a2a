"""Exponentials of correlations, e^M x, with derivatives of any order.

Of the derivatives there are two kinds, linear in all arguments but w, the taps of M = M(w):

    exponential       P(w; x, v_1 ... v_k) = D^k e^M [v_1, ..., v_k] x
    exponential_gram  Q(w; x, y, v_1 ... v_k) = the gradient by v of <y, P(w; x, v_1 ... v_k, v)>

The derivative of P by w in the direction v is P(...; v), and that of Q likewise, so the two are
closed under differentiation, forward and reverse. `kernels.series` sums them up.

Called by `operators.exponential`; torch and JAX run them their own way, by the rules below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from invconv.arrays.namespaces import Array, readable
from invconv.arrays.registry import Primitive
from invconv.kernels import maps
from invconv.kernels.families import StencilFamily
from invconv.kernels.series import Counts, counts_of, series


def _exponential(
    family: StencilFamily, w: Array, x: Array, *directions: Array, counts: Counts | None = None
) -> Array:
    """Return P(w; x, directions), which is e^M(w) x without directions.

    Parameters
    ----------
    family : StencilFamily
    w : array, shape (T, C, C)
        The taps of M.
    x : array, shape (B, C, *spatial)
    directions : arrays, shape (T, C, C)
    counts : Counts, optional
        Those of `counts_of`, where they are known.
    """
    return series(maps, family, w, directions, counts)(x)


def _exponential_gram(
    family: StencilFamily, w: Array, x: Array, y: Array, *directions: Array
) -> Array:
    """Return Q(w; x, y, directions), shape (T, C, C), the gradient of <y, e^M(w) x> without any."""
    return series(maps, family, w, directions, orders=1 + len(directions)).pull_back(x, y)[0]


def _exponential_vjp(
    family: StencilFamily, w: Array, x: Array, y_bar: Array
) -> tuple[Array, Array]:
    """Return the cotangents of w and x of e^M(w) x, both from one pass."""
    return series(maps, family, w, (), orders=1).pull_back(x, y_bar)


exponential = Primitive(_exponential, "exponential", on=1)
exponential_gram = Primitive(_exponential_gram, "exponential_gram", on=1)
exponential_vjp = Primitive(_exponential_vjp, "exponential_vjp", on=1)


def exponential_tangent(
    family: StencilFamily, arrays: Sequence[Array], slot: int, tangent: Array
) -> Array:
    """Return what a tangent of argument ``slot`` of P(w; x, ...) contributes to that of P."""
    if slot == 0:
        return exponential(family, *arrays, tangent)
    return exponential(family, *arrays[:slot], tangent, *arrays[slot + 1 :])


def exponential_cotangent(
    family: StencilFamily, arrays: Sequence[Array], slot: int, bar: Array
) -> Array:
    """Return the cotangent of argument ``slot`` of P(w; x, ...)."""
    w, x, *directions = arrays
    if slot == 1:
        return _transposed_exponential(family, w, bar, directions)
    if slot > 1:
        del directions[slot - 2]
    return exponential_gram(family, w, x, bar, *directions)


def gram_tangent(
    family: StencilFamily, arrays: Sequence[Array], slot: int, tangent: Array
) -> Array:
    """Return what a tangent of argument ``slot`` of Q(w; x, y, ...) contributes to that of Q."""
    if slot == 0:
        return exponential_gram(family, *arrays, tangent)
    return exponential_gram(family, *arrays[:slot], tangent, *arrays[slot + 1 :])


def gram_cotangent(family: StencilFamily, arrays: Sequence[Array], slot: int, bar: Array) -> Array:
    """Return the cotangent of argument ``slot`` of Q(w; x, y, ...)."""
    w, x, y, *directions = arrays
    if slot == 1:
        return _transposed_exponential(family, w, y, [*directions, bar])
    if slot == 2:
        return exponential(family, w, x, *directions, bar)
    if slot > 2:
        del directions[slot - 3]
    return exponential_gram(family, w, x, y, *directions, bar)


def _transposed_exponential(
    family: StencilFamily, w: Array, y: Array, directions: Sequence[Array]
) -> Array:
    adjoint = family.adjoint
    return exponential(family.transpose(), adjoint(w), y, *map(adjoint, directions))


@dataclass(frozen=True, eq=False)
class ExponentialSolver:
    """x = e^-M y.

    Attributes
    ----------
    family : StencilFamily
    taps : array, shape (T, C, C)
        Of -M.
    counts : Counts or None
        None where they are chosen as it runs.
    """

    family: StencilFamily
    taps: Array
    counts: Counts | None

    @staticmethod
    def of(family: StencilFamily, taps: Array) -> ExponentialSolver:
        """Count the terms for the taps of -M, if their values can be looked at."""
        counts = counts_of(family, taps) if readable(taps) else None
        return ExponentialSolver(family, taps, counts)

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        plan: dict[str, Any] = {"method": "Taylor series of exp(-M)"}
        if self.counts is None:
            return plan | {"terms": "counted as it runs"}
        return plan | {"times": self.counts.steps, "terms": self.counts.terms}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        return exponential(self.family, self.taps, y, counts=self.counts)
