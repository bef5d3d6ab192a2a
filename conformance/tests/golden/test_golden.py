"""The golden files hold, and a value that moved is named."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import invconv as ic
from invconv_conformance.cases.table import CASES
from tests.golden.files import FOLDER, VERSIONS, document, read, write
from tests.golden.vectors import make, moved

COUNTS = {1: 58, 2: 30, 3: 8}  # of cases, by version


@pytest.mark.parametrize("version", VERSIONS)
def test_the_shipped_values_hold(version: int) -> None:
    goldens = read(version)
    assert len({golden.name for golden in goldens}) == COUNTS[version]
    assert [line for golden in goldens for line in moved(golden)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_read_is_written_as_it_was(version: int, tmp_path: Path) -> None:
    npz, page = write(tmp_path, read(version), document(version))
    text = page.read_text()
    if version < 3:  # a setting that came later
        text = re.sub(r'"boundary": \["symmetric"(, "symmetric")*\]', "", text)
    assert text == (FOLDER / page.name).read_text()
    with np.load(npz) as new, np.load(FOLDER / npz.name) as old:
        assert sorted(new.files) == sorted(old.files)
        assert all(np.array_equal(new[name], old[name]) for name in old.files)


def test_a_case_is_made(tmp_path: Path) -> None:
    write(tmp_path, [make(case) for case in CASES if case.name == "corner-bias"], document(1))
    assert [line for golden in read(1, tmp_path) for line in moved(golden)] == []


def test_a_value_that_moved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (golden,) = (golden for golden in read(1) if golden.name == "actnorm-2d")
    monkeypatch.setattr(ic.ActNorm, "log_det", lambda self, shape: np.zeros(()))
    assert "actnorm-2d: log_det by the core is off by" in moved(golden)[0]
    for name, line in (("y", "values of y: y["), ("log_det", "values of log_det: log_det is")):
        outputs = golden.outputs | {name: golden.outputs[name] * (1 + 1e-9)}
        assert line in moved(replace(golden, outputs=outputs))[0]
    numbers = golden.numbers | {"condition": golden.numbers["condition"] * (1 + 2e-6)}
    assert ": condition is" in moved(replace(golden, numbers=numbers))[0]
