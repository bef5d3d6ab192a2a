"""The drop-ins by the rules of their libraries, and a planted fault."""

from __future__ import annotations

from typing import Any

import pytest

from invconv.families.convolutions import Spectral
from tests.interop.peers.checks import OPERATORS
from tests.interop.peers.own import checks
from tests.interop.peers.subjects import LIBRARIES, float64, subject
from tests.selected import installed


@pytest.mark.parametrize("library", installed(LIBRARIES))
@pytest.mark.parametrize(
    "operator",
    [
        "periodic",
        *(pytest.param(n, marks=pytest.mark.slow) for n in OPERATORS if n != "periodic"),
    ],
)
def test_a_drop_in_keeps_its_librarys_rules(operator: str, library: str) -> None:
    with float64():
        asked = subject(library, OPERATORS[operator]())
        for check in checks(library):
            check(asked)


@pytest.mark.parametrize("library", ["torch", "numpyro"])
def test_a_wrong_log_determinant_is_caught(library: str, monkeypatch: Any) -> None:
    """By the Jacobian, and not by what compares the log-determinant with itself."""
    pytest.importorskip(library)
    right = Spectral.log_det

    def wrong(family: Spectral, w: Any, shape: Any, saving: bool = False) -> Any:
        log_det, memo = right(family, w, shape, saving)
        return log_det + 1, memo

    monkeypatch.setattr(Spectral, "log_det", wrong)
    with float64():
        asked, caught = subject(library, OPERATORS["periodic"]()), []
        for check in checks(library):
            try:
                check(asked)
            except AssertionError:
                caught.append(check.__name__)
    assert caught == ["the_log_determinant_is_that_of_the_jacobian"]
