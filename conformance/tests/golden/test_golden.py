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
from tests.golden.vectors import SELECTIONS, make, moved

Edit = Callable[[Any], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return files with three of the shipped cases."""
    names = ("corner-1d+", "periodic-even-dilated", "actnorm-2d")
    write(tmp_path, [golden for golden in read(1) if golden.name in names], document(1))
    return tmp_path


def edit_arrays(folder: Path, name: str, edit: Edit) -> None:
    with np.load(folder / "golden-1.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(folder / "golden-1.npz", **(arrays | {name: edit(arrays.get(name))}))


def edit_case(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    page = document(1, folder)
    edit(page["cases"][0])
    (folder / "golden-1.json").write_text(json.dumps(page))


def scaled(array: Any) -> Any:
    array.flat[3] *= 1 + 1e-9
    return array


def lines(folder: Path = FOLDER, *versions: int) -> list[str]:
    """Return a line for each value that moved."""
    return [line for v in versions or (1,) for golden in read(v, folder) for line in moved(golden)]


def test_the_shipped_values_hold() -> None:
    assert lines(FOLDER, *VERSIONS) == []


def test_the_files_are_small_and_cover_every_operator() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("golden-*")) < 450_000
    goldens = [golden for version in VERSIONS for golden in read(version)]
    convs = [golden.conv for golden in goldens]
    leaves = {type(c) for conv in convs for c in [conv, *getattr(conv, "steps", [])]}
    assert {cls.__name__ for cls in leaves} == set(ic.__all__) & {c.__name__ for c in leaves}
    assert len(leaves) >= 10
    assert {len(golden.spatial_shape) for golden in goldens} == {1, 2, 3, 4}
    assert {len(golden.batch_shape) for golden in goldens} == {0, 1, 2, 3}
    for version in VERSIONS:
        assert tuple(golden.name for golden in read(version)) == SELECTIONS[version]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    names = ("corner-bias", "chain-inverses")
    made = [make(case) for case in CASES if case.name in names]
    first = [path.read_bytes() for path in write(tmp_path, made, document(1))]
    assert [path.read_bytes() for path in write(tmp_path, made, document(1))] == first
    assert lines(tmp_path) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_read_is_written_as_it_was(version: int, tmp_path: Path) -> None:
    npz, page = write(tmp_path, read(version), document(version))
    assert page.read_text() == (FOLDER / page.name).read_text()
    with np.load(npz) as new, np.load(FOLDER / npz.name) as old:
        assert sorted(new.files) == sorted(old.files)
        assert all(np.array_equal(new[name], old[name]) for name in old.files)


@pytest.mark.parametrize("array", ["y", "x2", "kernel", "x", "z"])
def test_a_moved_array_is_named(array: str, folder: Path) -> None:
    edit_arrays(folder, f"periodic-even-dilated/{array}", scaled)
    found = lines(folder)
    assert found
    if array in ("y", "x2"):
        assert found[0].startswith(f"periodic-even-dilated: 1 of 60 values of {array}: {array}[0,")


@pytest.mark.parametrize("number", ["log_det", "condition"])
def test_a_moved_number_is_named(number: str, folder: Path) -> None:
    edit_case(folder, lambda case: case.update({number: case[number] * (1 + 2e-6)}))
    assert lines(folder)[0].startswith(
        f"corner-1d+: {'1 of 1 values of ' * (number == 'log_det')}{number}"
    )


def test_a_wrong_core_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ic.ActNorm, "log_det", lambda self, shape: np.zeros(()))
    assert "actnorm-2d: log_det by the core is off by" in lines(folder)[0]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda case: case["operator"].update({"class": "Popen"}), "unknown class 'Popen'"),
        (lambda case: case["operator"]["arrays"].update(kernel="nowhere"), "no array 'nowhere'"),
        (lambda case: case.update(spatial_shape=[8]), r"x has shape \(2, 2, 7\), not \(2, 2, 8\)"),
        (lambda case: case.pop("tolerance"), "tolerance"),
        (lambda case: case.update(log_det="0"), "expected finite numbers"),
    ],
)
def test_a_wrong_description_is_refused(edit: Edit, message: str, folder: Path) -> None:
    edit_case(folder, edit)
    with pytest.raises((ValueError, KeyError), match=message):
        read(1, folder)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("corner-1d+/x", lambda x: x.astype(np.float32), "float32 is not float64"),
        ("corner-1d+/x", lambda x: x * np.nan, "holds NaN or inf"),
        ("corner-1d+/other", lambda x: np.zeros(2), "no case uses the arrays"),
    ],
)
def test_wrong_arrays_are_refused(name: str, edit: Edit, message: str, folder: Path) -> None:
    edit_arrays(folder, name, edit)
    with pytest.raises(ValueError, match=message):
        read(1, folder)
