"""The conformance command: that it passes, fails, refuses, and keeps what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from invconv import numpy_primitives
from invconv._cli import main
from invconv_conformance.extended import ExtendedLU
from invconv_conformance.laws import LAWS
from invconv_conformance.runner import QUICK, run, select, select_laws


@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "torch"])
def test_the_laws_hold(library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"--json": tmp_path / "results.json", "--junit": tmp_path / "results.xml"}
    options = [text for option, path in files.items() for text in (option, str(path))]
    assert main(["conformance", "--quick", "--library", library, *options]) == 0
    document = json.loads(files["--json"].read_text())
    assert document["schema"] == "invconv-conformance/1"
    assert set(document["laws"]) == set(LAWS)
    results = document["results"]
    assert {r["case"] for r in results} == set(QUICK)
    assert all(r["status"] == "pass" and r["error"] <= r["bound"] for r in results)
    suites = ElementTree.parse(files["--junit"]).getroot()
    assert sum(int(suite.attrib["tests"]) for suite in suites) == len(results)
    assert f"{len(results)} of {len(results)} hold" in capsys.readouterr().out


def test_every_case_obeys_every_law_on_numpy() -> None:
    from invconv_conformance.libraries import targets

    numpy = next(t for t in targets() if t.library.name == "numpy")
    results = list(run([(numpy, "float32")], select("*", quick=False), select_laws("*")))
    bad = [r for r in results if r.status != "pass"]
    assert not bad, [(r.law, r.case, r.what, r.error, r.bound) for r in bad[:5]]


def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = numpy_primitives.correlate

    def off_by_one(stencil: Any, x: Any, *, wrap: bool = False) -> Any:
        y = original(stencil, x, wrap=wrap)
        return np.roll(y, 1, axis=-1) if wrap else y

    monkeypatch.setattr(numpy_primitives, "correlate", off_by_one)
    status = main(["conformance", "--library", "numpy", "--cases", "periodic-2d"])
    out = capsys.readouterr().out
    assert status == 1
    assert "fail" in out
    assert "python -m invconv conformance --library numpy --device cpu" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--library", "nupmy"], "--library: expected all, or some of numpy, array_api_strict"),
        (["--library", "cupy"], "--library: CuPy: not"),
        (["--cases", "emergent-*"], "--cases: nothing is named 'emergent-*'"),
        (["--laws", "murphy"], "--laws: nothing is named 'murphy'"),
        (["--library", "numpy", "--device", "cuda:0"], "nothing to run: --library numpy"),
        (["--json", "/no/such/folder/x.json"], "there is no folder /no/such/folder"),
    ],
)
def test_what_cannot_run_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", *options]) == 2
    assert message in capsys.readouterr().err


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
