"""Condition numbers of random operators: within a factor 3 of the truth, or called uncertain.

``python conformance/tests/stability/condition_accuracy.py`` does the same for 500 of every family.
"""

from __future__ import annotations

import pytest

from invconv.trust import norms
from invconv_conformance.cases import drawn
from invconv_conformance.cases.drawn import FAMILIES
from tests.stability.condition_accuracy import compare

ESTIMATED = ("corner", "raster", "EmergingConv", "Chain")


@pytest.fixture(autouse=True)
def soon_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the dense matrices small, with some on the other side of 512 unknowns."""
    monkeypatch.setattr(drawn, "LARGE", 600)


few_or_all = pytest.mark.parametrize("part", [0.4, pytest.param(1, marks=pytest.mark.slow)])


@few_or_all
@pytest.mark.parametrize("family", FAMILIES)
def test_a_condition_is_right_or_called_uncertain(family: str, part: float) -> None:
    found = list(compare(family, int(40 * part), seed=2))
    assert [c for c in found if not c.holds] == []
    assert sum(c.certain for c in found) > len(found) / 2


@few_or_all
@pytest.mark.parametrize("family", ESTIMATED)
def test_an_estimate_is_within_a_factor_of_three(
    family: str, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "_EXACT_NUMBERS", 0)
    found = list(compare(family, int(part * (10 if family == "Chain" else 30)), seed=3))
    assert [c for c in found if not c.holds] == []
    assert sum(c.certain for c in found) > len(found) / 2
    assert max(c.ratio for c in found if c.certain) <= 1 + 1e-6  # an estimate from below
