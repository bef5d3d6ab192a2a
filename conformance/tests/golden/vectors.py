"""Which cases are golden vectors, how they are made, and whether they hold."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

import invconv as ic
from invconv_conformance.cases.case import Case
from invconv_conformance.truth import oracle
from invconv_conformance.truth.bounds import C_FACTOR, EPS, scales
from invconv_conformance.truth.extended import EXTENDED, ExtendedLU
from invconv_conformance.truth.oracle import Matrix, Shape
from tests.golden.files import Golden

_SAME = 1e-6  # relative, of conditions and tolerances, which need no more digits


class Truth(NamedTuple):
    """What the definition gives in extended precision, and the tolerances of float64."""

    outputs: dict[str, Matrix]  # y, x2 and log_det
    numbers: dict[str, float]  # norm, inverse_norm and condition
    tolerance: dict[str, float]  # of each output, from the derived bounds

    def largest_error(self, what: str) -> Matrix:
        """Return how far a stored output may be from this one, entry by entry.

        It was rounded to float64 once, and may come from a platform whose extended precision is
        this one's or a better one. In extended precision the derived bounds hold with its epsilon.
        """
        unit = EPS["float64"]
        extended = self.tolerance[what] * float(np.finfo(EXTENDED).eps) / unit
        return np.asarray(unit * np.abs(self.outputs[what]) + extended)


def truth(conv: ic.InvertibleConv, spatial_shape: Shape, x: Matrix, z: Matrix) -> Truth:
    """Return y = forward(x), x2 = inverse(z) and log_det by the dense matrix of the oracle."""
    matrix, shift = oracle.affine(conv, spatial_shape, EXTENDED)
    lu = ExtendedLU(matrix)
    rows, rhs = (v.reshape(-1, len(matrix)).astype(EXTENDED) for v in (x, z))
    y, x2, log_det = rows @ matrix.T + shift, lu.solve((rhs - shift).T).T, lu.log_det()
    outputs = {"y": y.reshape(x.shape), "x2": x2.reshape(x.shape), "log_det": np.asarray(log_det)}
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    numbers = {"norm": float(values[0]), "inverse_norm": float(1 / values[-1])}
    numbers["condition"] = numbers["norm"] * numbers["inverse_norm"]
    s, unit = scales(conv, spatial_shape), C_FACTOR * EPS["float64"]
    size, size2 = (float(np.linalg.norm(v.astype(float), axis=1).max()) for v in (rows, x2))
    size_of_shift = float(np.linalg.norm(shift.astype(float)))
    tolerance = {
        "y": unit * s.terms * (s.gain * size + size_of_shift),
        "x2": unit * s.terms * s.gain * s.loss * (size2 + s.loss * size_of_shift),
        "log_det": unit * (s.logs + abs(float(log_det)) + 1),
    }
    return Truth(outputs, numbers, tolerance)


def make(case: Case) -> Golden:
    """Compute a case, its numbers rounded to float32 first."""
    conv = case.conv()
    conv = conv.replace(**{name: _rounded(a) for name, a in conv.parameters().items()})
    x, z = map(_rounded, case.images(2))
    found = truth(conv, case.spatial_shape, x, z)
    outputs = {what: value.astype(np.float64) for what, value in found.outputs.items()}
    shapes = case.spatial_shape, case.batch_shape
    return Golden(case.name, conv, *shapes, x, z, outputs, found.numbers, found.tolerance)


def _rounded(array: Matrix) -> Matrix:
    return array.astype(np.float32).astype(np.float64)


def check(golden: Golden) -> None:
    """Raise AssertionError unless all numbers are those of the definition, and the core's."""
    conv, outputs, grid = golden.conv, golden.outputs, golden.spatial_shape
    found = truth(conv, grid, golden.x, golden.z)
    for what, value in outputs.items():
        right = np.abs(value - found.outputs[what]) <= found.largest_error(what)
        assert right.all(), f"{golden.name}: {what} is not what the definition gives"
    for stored, again in ((golden.numbers, found.numbers), (golden.tolerance, found.tolerance)):
        assert stored == pytest.approx(again, rel=_SAME, abs=0), golden.name
    ours = conv.forward(golden.x), conv.inverse(golden.z), conv.log_det(grid)
    for what, by_core in zip(("y", "x2", "log_det"), ours, strict=True):
        off = by_core - outputs[what]
        rows = off.reshape(math.prod(golden.batch_shape) if off.ndim else 1, -1)
        error = np.linalg.norm(rows, axis=1).max()
        assert error <= found.tolerance[what], f"{golden.name}: {what} by the core, off by {error}"
