"""What the laws compare with is right to more digits than what they judge."""

from __future__ import annotations

import numpy as np
import pytest

from invconv_conformance.truth.extended import ExtendedLU


def test_extended_precision_beats_lapack() -> None:
    rng = np.random.default_rng(0)
    matrix, x = rng.standard_normal((40, 40)), rng.standard_normal((40, 2))
    lu = ExtendedLU(matrix)
    rhs = matrix.astype(np.longdouble) @ x
    exact = float(np.abs(lu.solve(rhs) - x).max())
    assert exact < 1e-15
    transposed = lu.solve(matrix.T.astype(np.longdouble) @ x, transposed=True)
    assert float(np.abs(transposed - x).max()) < 1e-15
    assert float(lu.log_det()) == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-13)
