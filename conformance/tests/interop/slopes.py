"""How the density of a drop-in changes with its parameters, from dense matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from invconv_conformance.cases.case import Case
from invconv_conformance.truth import oracle

_STEP = 1e-5


def direction(case: Case) -> dict[str, Any]:
    """Return a random direction of the parameters."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(a.shape) for name, a in case.conv().parameters().items()}


def slope_of_density(case: Case, rows: Any, along: dict[str, Any]) -> float:
    """Return the derivative of the sum over rows x of log N(K x + b) + log|det K|."""

    def density(step: float) -> float:
        moved = {n: a + step * along[n] for n, a in case.conv().parameters().items()}
        matrix, shift = oracle.affine(case.conv().replace(**moved), case.spatial_shape)
        z = rows @ matrix.T + shift
        return float(len(rows) * np.linalg.slogdet(matrix)[1] - (z**2).sum() / 2)

    return (density(_STEP) - density(-_STEP)) / (2 * _STEP)
