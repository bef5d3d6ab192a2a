"""The golden vectors in ``conformance/golden``: whether they hold, by the definition and the core.

The format, "invconv-golden/1" to "/3", is described in the JSON itself. A version is of the
operators that there were: what has been published is never edited, a later version adds files.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from invconv.files.container import Json
from invconv.files.saving import build
from invconv_conformance.cases.table import Case
from invconv_conformance.laws.setting import Setting
from invconv_conformance.libraries import Column, target_of
from invconv_conformance.truth.bounds import C_FACTOR, EPS
from invconv_conformance.truth.oracle import EXTENDED, Matrix

FOLDER = Path(__file__).parents[2] / "golden"
COUNTS = {1: 58, 2: 30, 3: 8}  # of cases, by version
NUMPY = target_of(Column("numpy", "cpu", "eager", "float64"))
UNIT = EPS["float64"]


def near(number: float) -> object:
    """Return what compares as a condition or a tolerance, which need no more digits."""
    return pytest.approx(number, rel=1e-6, abs=0)


def check(case: Json, arrays: dict[str, Matrix], used: set[str]) -> None:
    """Compare all numbers of a case with those of the definition, and the core's."""
    conv = build(case["operator"], arrays, used)
    grid, batch = tuple(case["spatial_shape"]), tuple(case["batch_shape"])
    x, y, z, x2 = (arrays[case[image]] for image in ("x", "y", "z", "x2"))
    used |= {case[image] for image in ("x", "y", "z", "x2")}
    assert x.shape == y.shape == z.shape == x2.shape == (*batch, case["channels"], *grid)
    numbers = [case[name] for name in ("log_det", "norm", "inverse_norm", "condition")]
    for number in (*numbers, *case["tolerance"].values()):
        assert type(number) is float
        assert math.isfinite(number)
    s = Setting(Case(case["name"], lambda _: conv, grid, batch), NUMPY, "float64")
    exact = {"y": s.forward(x), "x2": s.inverse(z), "log_det": np.asarray(s.lu.log_det())}
    bounds = {"y": (s.unit * s.reach(x)).max(), "x2": s.solve_bound(exact["x2"]).max()}
    bounds["log_det"] = C_FACTOR * UNIT * (s.scales.logs + abs(float(exact["log_det"])) + 1)
    values = np.linalg.svd(s.affine[0].astype(float), compute_uv=False)
    assert numbers[1:] == [near(n) for n in (values[0], 1 / values[-1], values[0] / values[-1])]
    ours = {"y": conv.forward(x), "x2": conv.inverse(z), "log_det": conv.log_det(grid)}
    for what, stored in (("y", y), ("x2", x2), ("log_det", np.asarray(case["log_det"]))):
        assert case["tolerance"][what] == near(float(bounds[what])), what
        # stored as float64, of numbers in extended precision
        rounding = UNIT * np.abs(exact[what]) + bounds[what] * float(np.finfo(EXTENDED).eps) / UNIT
        assert (np.abs(stored - exact[what]) <= rounding).all(), what
        off = s.norm(ours[what] - stored) if stored.ndim else np.abs(ours[what] - stored)
        assert off.max() <= bounds[what], f"{what} by the core, off by {off.max()}"


@pytest.mark.parametrize("version", COUNTS)
def test_the_shipped_values_hold(version: int) -> None:
    with np.load(FOLDER / f"golden-{version}.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        assert array.dtype in (np.float64, np.int64), name
        assert np.isfinite(array).all(), name
    page: Json = json.loads((FOLDER / f"golden-{version}.json").read_text(encoding="utf-8"))
    assert page["schema"] == f"invconv-golden/{version}"
    assert len({case["name"] for case in page["cases"]}) == COUNTS[version]
    used = set[str]()
    for case in page["cases"]:
        check(case, arrays, used)
    assert used == set(arrays)
