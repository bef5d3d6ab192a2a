"""The drop-ins by the rules of their libraries: the README's table, and failures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from invconv_conformance.peers import __main__ as peers
from invconv_conformance.peers.checks import EVENT, OPERATORS, close
from invconv_conformance.peers.own import checks
from invconv_conformance.peers.subjects import LIBRARIES, float64, subject
from invconv_conformance.truth import oracle
from tests.selected import installed


@pytest.mark.parametrize("library", installed(LIBRARIES))
def test_a_drop_in_keeps_its_librarys_rules_and_goes_our_way(library: str) -> None:
    with float64():
        conv = OPERATORS["periodic"]()
        asked = subject(library, conv)
        for check in checks(library):
            check(asked)
        matrix, shift = oracle.affine(conv, EVENT[1:])
        x = asked.normal(asked.batch)
        z, log_det = asked.flow.to_latent(x)  # K x + b, whatever a library calls forward
        rows = np.asarray(x).reshape(-1, len(matrix))
        close(z, (rows @ matrix.T + shift).reshape(x.shape))
        close(log_det, np.full(asked.batch, np.linalg.slogdet(matrix)[1]))


def test_the_table_in_the_readme_is_of_these_checks() -> None:
    text = peers.README.read_text(encoding="utf-8")
    shown = text[text.index(peers.START) : text.index(peers.END)]
    rows = re.findall(r"^\| `(\w+)` \| [\w-]+ [\d.]+ \| (\d+) of (\d+) \| (\d+) \|$", shown, re.M)
    expected = []
    for library in LIBRARIES:
        number = len(OPERATORS) * len(checks(library))
        name, _ = peers._DROP_INS[library]
        expected.append((name, str(number), str(number), str(len(OPERATORS))))
    assert rows == expected, "run python -m invconv_conformance.peers --write"


@pytest.mark.slow
def test_the_command_finds_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.main([]) == 0
    printed = capsys.readouterr().out.strip()
    versions = re.compile(r"(?<= )[\d.]+(?= \|)")
    shown = peers.README.read_text(encoding="utf-8")
    assert versions.sub("", printed) in versions.sub("", shown)


def test_a_failure_is_told(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(subject: Any) -> None:
        raise AssertionError("planted")

    monkeypatch.setattr(peers, "rows", lambda: [peers._row("torch")])
    monkeypatch.setattr(peers, "checks", lambda library: [fails])
    monkeypatch.setattr(peers, "COMMON", ())
    assert peers.main(["--write"]) == 1
    out = capsys.readouterr().out
    assert f"| 0 of {len(OPERATORS)} | {len(OPERATORS)} |" in out
    assert "torch, periodic: fails: planted" in out
