"""The golden vectors in ``conformance/golden``: whether they hold, by the definition and the core.

The format, "invconv-golden/1" to "/3", is described in the JSON itself. A version is of the
operators that there were: what has been published is never edited, a later version adds files.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import invconv as ic
from invconv.files.container import Json
from invconv.files.operator_files import build
from invconv_conformance.truth import oracle
from invconv_conformance.truth.bounds import C_FACTOR, EPS, scales
from invconv_conformance.truth.extended import EXTENDED, ExtendedLU
from invconv_conformance.truth.oracle import Matrix, Shape

_SAME = 1e-6  # relative, of conditions and tolerances, which need no more digits


class Truth(NamedTuple):
    """What the definition gives in extended precision, and the tolerances of float64."""

    outputs: dict[str, Matrix]  # y, x2 and log_det
    numbers: dict[str, float]  # norm, inverse_norm and condition
    tolerance: dict[str, float]  # of each output, from the derived bounds

    def largest_error(self, what: str) -> Matrix:
        """Return how far a stored output, which was rounded to float64, may be from this one."""
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


@dataclass(frozen=True, eq=False)
class Golden:
    """An operator on a grid, what goes in and what comes out."""

    name: str
    conv: ic.InvertibleConv
    spatial_shape: Shape
    batch_shape: Shape
    x: Matrix
    z: Matrix
    outputs: dict[str, Matrix]  # y, x2 and log_det
    numbers: dict[str, float]  # norm, inverse_norm and condition
    tolerance: dict[str, float]  # of each output


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


FOLDER = Path(__file__).parents[2] / "golden"
VERSIONS = (1, 2, 3)


def read(version: int) -> list[Golden]:
    """Return the cases of a version, whose files must be right."""
    with np.load(FOLDER / f"golden-{version}.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        assert array.dtype in (np.float64, np.int64), f"{name}: {array.dtype} is not float64"
        assert np.isfinite(array).all(), f"{name} holds NaN or inf"
    page: Json = json.loads((FOLDER / f"golden-{version}.json").read_text(encoding="utf-8"))
    used = set[str]()
    assert page["schema"] == f"invconv-golden/{version}", f"{page['schema']} is another format"
    goldens = [_read_case(case, arrays, used) for case in page["cases"]]
    assert used == set(arrays), f"no case uses the arrays {sorted(set(arrays) - used)}"
    return goldens


def _read_case(case: Json, arrays: dict[str, Matrix], used: set[str]) -> Golden:
    spatial, batch = tuple(case["spatial_shape"]), tuple(case["batch_shape"])
    images = {image: arrays[case[image]] for image in ("x", "y", "z", "x2")}
    used |= {case[image] for image in images}
    shape = (*batch, case["channels"], *spatial)
    for image, array in images.items():
        assert array.shape == shape, f"{image} has shape {array.shape}, not {shape}"
    outputs = {"y": images["y"], "x2": images["x2"], "log_det": np.asarray(case["log_det"])}
    numbers = {name: case[name] for name in ("norm", "inverse_norm", "condition")}
    found = [case["log_det"], *numbers.values(), *case["tolerance"].values()]
    assert all(type(v) is float and math.isfinite(v) for v in found), "expected finite numbers"
    conv = build(case["operator"], arrays, used)
    x, z = images["x"], images["z"]
    return Golden(case["name"], conv, spatial, batch, x, z, outputs, numbers, case["tolerance"])


COUNTS = {1: 58, 2: 30, 3: 8}  # of cases, by version


@pytest.mark.parametrize("version", VERSIONS)
def test_the_shipped_values_hold(version: int) -> None:
    goldens = read(version)
    assert len({golden.name for golden in goldens}) == COUNTS[version]
    for golden in goldens:
        check(golden)
