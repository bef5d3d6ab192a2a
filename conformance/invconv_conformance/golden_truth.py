"""The true outputs of an operator in extended precision, for the golden file.

The oracle's matrices, put together here once more: beside every matrix goes an entrywise bound of
the sums it was computed from, so that an output can be judged on platforms whose longdouble is a
float64 as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance import oracle
from invconv_conformance.bounds import EPS
from invconv_conformance.extended import EXTENDED, ExtendedLU
from invconv_conformance.oracle import Matrix, Shape

# What two platforms may differ by: that much rounding in every term of every sum.
_ULPS = 16.0


@dataclass(frozen=True, eq=False)
class Affine:
    """x -> K x + b, in extended precision.

    Attributes
    ----------
    matrix, shift : array
        K and b.
    reach, shift_reach : array
        Entrywise bounds of the terms that K and b are sums of: |K_2| |K_1| for a product.
    """

    matrix: Matrix
    shift: Matrix
    reach: Matrix
    shift_reach: Matrix

    def then(self, other: Affine) -> Affine:
        """Return ``other`` after this."""
        return Affine(
            other.matrix @ self.matrix,
            other.matrix @ self.shift + other.shift,
            other.reach @ self.reach,
            other.reach @ self.shift_reach + other.shift_reach,
        )

    def inverse(self) -> Affine:
        """Return y -> K^-1 (y - b)."""
        solved = ExtendedLU(self.matrix).solve(np.eye(len(self.matrix)))
        reach = np.abs(solved) @ self.reach @ np.abs(solved)
        return Affine(solved, -solved @ self.shift, reach, reach @ self.shift_reach)


@dataclass(frozen=True, eq=False)
class Truth:
    """Outputs and how far another platform's may be from them, rounded to float64."""

    values: dict[str, Matrix]
    allowed: dict[str, Matrix]


def affine(conv: ic.InvertibleConv, shape: Shape) -> Affine:
    """Return the map of an operator of NumPy float64 arrays on a grid."""
    if isinstance(conv, ic.Inverse):
        return affine(conv.conv, shape).inverse()
    if isinstance(conv, ic.Chain | ic.EmergingConv):
        parts = conv.steps if isinstance(conv, ic.Chain) else (conv.first, conv.second)
        whole = affine(parts[0], shape)
        for part in parts[1:]:
            whole = whole.then(affine(part, shape))
        bias = _shift(conv, shape)
        return Affine(
            whole.matrix, whole.shift + bias, whole.reach, whole.shift_reach + np.abs(bias)
        )
    matrix, shift = oracle.affine(conv, shape, EXTENDED)
    return Affine(matrix, shift, np.abs(matrix), np.abs(shift))


def _shift(conv: Any, shape: Shape) -> Matrix:
    bias = getattr(conv, "bias", None)
    bias = np.zeros(conv.channels) if bias is None else bias
    return np.repeat(bias.astype(EXTENDED), math.prod(shape))


def truth(conv: ic.InvertibleConv, shape: Shape, x: Matrix, z: Matrix) -> Truth:
    """Return y = forward(x), x2 = inverse(z) and log_det.

    To first order, an entrywise change |dK| <= u R of the matrix and u b of the shift moves y by
    u (R |x| + |b|), x2 by u |K^-1| (R |x2| + |z| + |b|) and log|det K| by u sum |K^-T| * R.
    """
    a = affine(conv, shape)
    lu = ExtendedLU(a.matrix)
    inverse_reach = np.abs(lu.solve(np.eye(len(a.matrix))))
    columns, rhs = (v.reshape(-1, len(a.matrix)).T.astype(EXTENDED) for v in (x, z))
    b, b_reach = a.shift[:, None], a.shift_reach[:, None]
    solved, log_det = lu.solve(rhs - b), lu.log_det()
    u = _ULPS * EPS["float64"]
    values = {"y": (a.matrix @ columns + b).T, "x2": solved.T}
    allowed = {
        "y": u * (a.reach @ np.abs(columns) + b_reach).T,
        "x2": u * (inverse_reach @ (a.reach @ np.abs(solved) + np.abs(rhs) + b_reach)).T,
    }
    shaped = {name: value.reshape(x.shape) for name, value in values.items()}
    shaped["log_det"] = np.asarray(log_det)
    limits = {name: value.reshape(x.shape) for name, value in allowed.items()}
    limits["log_det"] = np.asarray(u * (1 + abs(log_det) + (inverse_reach.T * a.reach).sum()))
    return Truth(
        {name: value.astype(np.float64) for name, value in shaped.items()},
        {name: value.astype(np.float64) for name, value in limits.items()},
    )
