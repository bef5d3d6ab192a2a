"""The golden files hold, a value that moved is named, and files that are wrong are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv_conformance.cases import CASES
from tests.golden.files import FOLDER, VERSIONS, document, read, write
from tests.golden.vectors import make, moved

Edit = Callable[[Any], Any]
COUNTS = {1: 58, 2: 30}  # of cases, by version


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return files with two of the shipped cases."""
    names = ("corner-1d+", "actnorm-2d")
    write(tmp_path, [golden for golden in read(1) if golden.name in names], document(1))
    return tmp_path


def lines(folder: Path, *versions: int) -> list[str]:
    """Return a line for each value that moved."""
    return [line for v in versions or (1,) for golden in read(v, folder) for line in moved(golden)]


def test_the_shipped_values_hold() -> None:
    assert lines(FOLDER, *VERSIONS) == []
    for version in VERSIONS:
        assert len({golden.name for golden in read(version)}) == COUNTS[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_read_is_written_as_it_was(version: int, tmp_path: Path) -> None:
    npz, page = write(tmp_path, read(version), document(version))
    assert page.read_text() == (FOLDER / page.name).read_text()
    with np.load(npz) as new, np.load(FOLDER / npz.name) as old:
        assert sorted(new.files) == sorted(old.files)
        assert all(np.array_equal(new[name], old[name]) for name in old.files)


def test_a_case_is_made(tmp_path: Path) -> None:
    write(tmp_path, [make(case) for case in CASES if case.name == "corner-bias"], document(1))
    assert lines(tmp_path) == []


def test_a_wrong_core_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ic.ActNorm, "log_det", lambda self, shape: np.zeros(()))
    assert "actnorm-2d: log_det by the core is off by" in lines(folder)[0]


@pytest.mark.parametrize(
    ("name", "edit", "line"),
    [
        ("y", lambda y: y * (1 + 1e-9), "values of y: y["),
        ("kernel", lambda kernel: kernel * (1 + 1e-9), "values of y: y["),
        ("x", lambda x: x.astype(np.float32), "float32 is not float64"),
        ("x", lambda x: x * np.nan, "holds NaN or inf"),
        ("other", lambda _: np.zeros(2), "no case uses the arrays"),
    ],
)
def test_wrong_arrays_are_named(name: str, edit: Edit, line: str, folder: Path) -> None:
    with np.load(folder / "golden-1.npz") as archive:
        arrays = dict(archive)
    arrays |= {f"corner-1d+/{name}": edit(arrays.get(f"corner-1d+/{name}"))}
    np.savez(folder / "golden-1.npz", **arrays)
    assert line in first_fault(folder)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda case: case.update(log_det=case["log_det"] * (1 + 2e-6)), "values of log_det: log"),
        (lambda case: case.update(condition=case["condition"] * (1 + 2e-6)), ": condition is"),
        (lambda case: case["operator"].update({"class": "Popen"}), "unknown class 'Popen'"),
        (lambda case: case.update(spatial_shape=[8]), "x has shape (2, 2, 7), not (2, 2, 8)"),
        (lambda case: case.update(log_det="0"), "expected finite numbers"),
    ],
)
def test_a_wrong_description_is_named(edit: Edit, line: str, folder: Path) -> None:
    page = document(1, folder)
    edit(page["cases"][0])
    (folder / "golden-1.json").write_text(json.dumps(page))
    assert line in first_fault(folder)


def first_fault(folder: Path) -> str:
    """Return the first line of what is wrong, or the error of reading."""
    try:
        return lines(folder)[0]
    except (ValueError, KeyError) as error:
        return str(error)
