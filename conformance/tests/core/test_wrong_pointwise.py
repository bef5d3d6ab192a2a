"""Wrong parameters of orthogonal and circulant convolutions: what was expected, and what came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import invconv as ic

ONES = np.ones(3)
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "zero-reflector-orthogonal": (
        lambda: ic.OrthogonalConv1x1(np.zeros((1, 3))),
        ValueError,
        r"reflectors: expected no zero vector, got one in row 0",
    ),
    "reflectors-vector": (
        lambda: ic.OrthogonalConv1x1(np.ones(3)),
        ValueError,
        r"reflectors: expected shape \(m, C\), got \(3,\)",
    ),
    "circulant-shape": (
        lambda: ic.CirculantConv1x1(ONES, np.ones(2), ONES),
        ValueError,
        r"circulant: expected shape \(C,\) with C = 3 as left has, got \(2,\)",
    ),
    "circulant-dtype": (
        lambda: ic.CirculantConv1x1(ONES, ONES, np.ones(3, np.float32)),
        TypeError,
        r"right: expected dtype float64 as left has, got float32",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(name: str) -> None:
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()
