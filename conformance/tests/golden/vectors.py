"""Which cases are golden vectors, how they are made, and which outputs have moved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

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


def _norms(golden: Golden, images: Matrix) -> Matrix:
    """Return the 2-norm of each sample."""
    samples = images.reshape(math.prod(golden.batch_shape), -1)
    return np.asarray(np.linalg.norm(samples, axis=1))


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


def moved(golden: Golden) -> list[str]:
    """Return a line for each output that is not what the definition and the core give."""
    found = truth(golden.conv, golden.spatial_shape, golden.x, golden.z)
    lines = [
        *_by_definition(golden, found),
        *_by_number("", golden.numbers, found.numbers),
        *_by_number("tolerance of ", golden.tolerance, found.tolerance),
        *_by_core(golden, found.tolerance),
    ]
    return [f"{golden.name}: {line}" for line in lines]


def _by_definition(golden: Golden, found: Truth) -> Iterator[str]:
    for what, value in golden.outputs.items():
        share = (np.abs(value - found.outputs[what]) / found.largest_error(what)).astype(float)
        bad = int((~(share <= 1)).sum())
        if bad:
            at = np.unravel_index(int(np.argmax(share)), share.shape)
            where = f"{what}[{', '.join(map(str, at))}]" if at else what
            yield (
                f"{bad} of {share.size} values of {what}: {where} is {float(value[at])!r}, "
                f"the definition gives {float(found.outputs[what][at])!r}"
            )


def _by_number(prefix: str, stored: dict[str, float], again: dict[str, float]) -> Iterator[str]:
    for name, number in again.items():
        if not math.isclose(stored[name], number, rel_tol=_SAME):
            yield f"{prefix}{name} is {stored[name]}, recomputed {number}"


def _by_core(golden: Golden, tolerance: dict[str, float]) -> Iterator[str]:
    conv, outputs = golden.conv, golden.outputs
    errors = {
        "y": _norms(golden, conv.forward(golden.x) - outputs["y"]).max(),
        "x2": _norms(golden, conv.inverse(golden.z) - outputs["x2"]).max(),
        "log_det": abs(conv.log_det(golden.spatial_shape) - outputs["log_det"]),
    }
    for what, error in errors.items():
        if not error <= tolerance[what]:
            yield (
                f"{what} by the core is off by {float(error):.3g}, "
                f"over the bound {tolerance[what]:.3g}"
            )
