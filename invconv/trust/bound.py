"""A bound of the error of a computation: rounding of each step, carried on by the other steps.

With |.| the infinity norm, which bounds the largest entry, let step i, x_i = K_i x_(i-1) + b_i,
sum m_i products. In units of eps, with |x_0| <= 1,

    forward    |x_i| <= X_i = |K_i| X_(i-1) + |b_i|       F_i = |K_i| F_(i-1) + m_i X_i
    backward   E_n = F_n,                                 E_(i-1) = |K_i^-1| (E_i + m_i X_i)

and E_0 bounds the error of every entry of x_0, found from y = x_n: a sum of m products is off by at
most m eps / 2 of the sum of their sizes, and so is K x' from y after a substitution (N. J. Higham,
Accuracy and Stability of Numerical Algorithms, 2002, chapters 3 and 8). If the forward map of a
step is a solve, its error is |K^-1| |K| times as large.

The O(1) bound of a convolution is Neumann's. With K = D (I + D^-1 R), R the taps other than D,
|R| <= sum |taps|, and if rho = |D^-1| sum |taps| < 1 then |K^-1| <= |D^-1| / (1 - rho).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.trust.limits import IN_RANGE

Floats = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Bounds:
    """Numbers that bound the errors of a step."""

    gain: float  # |K| in the infinity norm, or a bound
    back: float  # |K^-1| likewise
    terms: float  # m, the products in a sum; times |D^-1| |D| if a substitution multiplies by D^-1
    bias: float = 0.0  # |b|
    solves_forward: bool = False

    def inverted(self) -> "Bounds":
        """Return the bounds of the step that undoes this one."""
        bias = self.back * self.bias
        return Bounds(self.back, self.gain, self.terms, bias, not self.solves_forward)


UNBOUNDED = Bounds(math.inf, math.inf, 1.0)


def error_bound(steps: Iterable[Bounds]) -> float:
    """Return E_0 in units of eps, or inf if a step is unbounded."""
    path, largest, error = [], 1.0, 0.0
    most, least = 1.0, 1.0  # products of the gains of successive steps: their matrices may merge
    for step in steps:
        largest = step.gain * largest + step.bias
        most, least = max(most, 1.0) * step.gain, min(least, 1.0) * step.gain
        in_range = max(largest, most, step.back) < IN_RANGE and min(largest, least) > 1 / IN_RANGE
        if not in_range:  # numbers may overflow, or lose digits where they underflow
            return math.inf
        rounding = step.terms * largest
        loss = step.gain * step.back if step.solves_forward else 1.0
        error = step.gain * error + loss * rounding
        path.append((step.back, rounding))
    for back, rounding in reversed(path):
        error = back * (error + rounding)
    return error


def of_taps(diagonal: Floats, taps: Floats) -> Bounds:
    """Return the bounds of a causal convolution of D and taps (T, C, C), by Neumann's series."""
    inverse = np.linalg.inv(diagonal)
    at_pixel, back = row_sum(diagonal), row_sum(inverse)
    rest = float(np.abs(taps).sum(axis=(0, 2)).max())
    rho = back * rest
    if not rho < 1:
        return UNBOUNDED
    terms = (len(diagonal) * (len(taps) + 1) + 2) * max(1.0, at_pixel * back)
    return Bounds(at_pixel + rest, back / (1 - rho), terms)


def of_matrix(matrix: Floats, inverse: Floats, *, triangular: bool = False) -> Bounds:
    """Return the bounds of a matrix, given its inverse."""
    channels = len(matrix)
    terms = channels + 2 if triangular else channels**2 + 2  # an orthogonal factorisation
    return Bounds(row_sum(matrix), row_sum(inverse), terms)


def row_sum(matrix: Floats) -> float:
    """Return the infinity norm of a matrix."""
    return float(np.abs(matrix).sum(axis=1).max())


def neumann_ratio(diagonal: Floats, taps: Floats) -> float:
    """Return |D^-1| sum |taps| in the 2-norm: below 1, K^-1 is bounded on every grid."""
    try:
        inverse = float(np.linalg.norm(np.linalg.inv(diagonal), 2))
    except np.linalg.LinAlgError:
        return math.inf
    return inverse * float(np.linalg.norm(taps, 2, axis=(1, 2)).sum())
