"""The drop-ins by the rules of their libraries, and a planted fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from invconv.families.convolutions import Spectral
from invconv_conformance.truth import oracle
from tests.interop.peers.checks import EVENT, OPERATORS, close
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
def test_a_drop_in_keeps_its_librarys_rules_and_goes_our_way(operator: str, library: str) -> None:
    with float64():
        conv = OPERATORS[operator]()
        asked = subject(library, conv)
        for check in checks(library):
            check(asked)
        matrix, shift = oracle.affine(conv, EVENT[1:])
        x = asked.normal(asked.batch)
        z, log_det = asked.flow.to_latent(x)  # K x + b, whatever a library calls forward
        rows = np.asarray(x).reshape(-1, len(matrix))
        close(z, (rows @ matrix.T + shift).reshape(x.shape))
        close(log_det, np.full(asked.batch, np.linalg.slogdet(matrix)[1]))


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
