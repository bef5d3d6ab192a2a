"""The same operator, carried over, has the same log-determinant and inverse on every library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_conformance.cases import CASES
from invconv_conformance.cases.case import Case
from invconv_conformance.cases.quick import QUICK, QUICK_MORE
from invconv_conformance.libraries import Target, targets
from invconv_conformance.truth import oracle

TOLERANCE = {"float64": 1e-13, "float32": 2e-6}
REGULAR = [case for case in CASES if not case.singular and not case.name.startswith("ill-")]


def run(case: Case, target: Target, dtype: str) -> tuple[Any, Any]:
    conv = case.conv().asarrays(target.asarray(np.zeros(()), dtype))
    y = target.asarray(case.images(1)[0].astype(dtype), dtype)
    log_det = conv.log_det(case.spatial_shape)
    inverse = conv.prepare(case.spatial_shape, check=False).inverse(y)
    return to_numpy(log_det).astype(float), to_numpy(inverse).astype(float)


# JAX compiles all that it runs: by default a few cases in float64, and none that is there for the
# layout of images in the CPU's kernel, which all libraries share; series are long elsewhere too
FEW = {*QUICK, *QUICK_MORE}
LAYOUTS = ("-rows", "-image", "-images", "-channels")
LONG = {case.name for case in REGULAR if case.name.startswith("exponential")} - FEW
LONGEST = {name for name in LONG if "-4d" in name}
SELECTED = [
    *(
        pytest.param("others", case, dtype, marks=[pytest.mark.slow] * (case.name in long))
        for dtype, long in (("float64", LONGEST), ("float32", LONG))
        for case in REGULAR
    ),
    *(
        pytest.param("jax", case, dtype, marks=[pytest.mark.slow] * (case.name not in few))
        for dtype, few in (
            ("float64", {n for n in FEW if not n.endswith(LAYOUTS)}),
            ("float32", ()),
        )
        for case in REGULAR
    ),
]


@pytest.mark.parametrize(
    ("library", "case", "dtype"), SELECTED, ids=lambda v: getattr(v, "name", v)
)
def test_log_det_and_inverse(library: str, case: Case, dtype: str) -> None:
    numpy, *others = targets()
    others = [t for t in others if (t.library.name == "jax") == (library == "jax")]
    log_det, inverse = run(case, numpy, dtype)
    matrix, _ = oracle.affine(case.conv(), case.spatial_shape)
    values = np.linalg.svd(matrix, compute_uv=False)
    condition = values[0] / values[-1]
    # what is added up are logs of pivots; those of a spectrum's matrices are not K's own
    pivots = np.diagonal(scipy.linalg.lu(matrix, permute_l=True)[1])
    logs = np.log(values if isinstance(case.conv(), ic.PeriodicConv) else np.abs(pivots))
    terms = float(np.abs(logs).sum())
    bound = TOLERANCE[dtype] * max(1.0, condition)
    if isinstance(conv := case.conv(), ic.QRConv1x1):  # a product of so many rotations of C axes
        bound *= max(1.0, len(conv.reflectors) / conv.channels)
    for target in others:
        other_log_det, other_inverse = run(case, target, dtype)
        assert abs(other_log_det - log_det) <= bound * max(terms, 1e-300), target
        assert np.linalg.norm(other_inverse - inverse) <= bound * np.linalg.norm(inverse), target
