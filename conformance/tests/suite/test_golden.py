"""The golden file: that it holds, that a moved value is named, that damaged files are refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv_conformance.cases import CASES
from invconv_conformance.golden.__main__ import main
from invconv_conformance.golden.files import FOLDER, Golden, read, versions, write
from invconv_conformance.golden.format import VERSIONS, file_name
from invconv_conformance.golden.vectors import SELECTIONS, make

Edit = Callable[[Any], Any]
NAME = file_name(1)


def shipped() -> list[Golden]:
    return [golden for version in VERSIONS for golden in read(FOLDER, version)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return files with three of the shipped cases."""
    names = ("corner-1d+", "periodic-even-dilated", "actnorm-2d")
    write(tmp_path, [golden for golden in read(FOLDER, 1) if golden.name in names], 1)
    return tmp_path


def edit_arrays(folder: Path, name: str, edit: Edit) -> None:
    with np.load(folder / f"{NAME}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays[name] = edit(arrays[name])
    np.savez(folder / f"{NAME}.npz", **arrays)


def edit_case(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / f"{NAME}.json"
    document = json.loads(path.read_text())
    edit(document["cases"][0])
    path.write_text(json.dumps(document))


def scaled(array: Any) -> Any:
    array.flat[3] *= 1 + 1e-9
    return array


def test_the_shipped_values_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "none moved" in capsys.readouterr().out


def test_the_files_are_small_and_cover_every_operator() -> None:
    names = {f"{file_name(v)}{suffix}" for v in VERSIONS for suffix in (".npz", ".json")}
    assert {path.name for path in FOLDER.glob("golden-*")} == names
    assert sum(path.stat().st_size for path in FOLDER.glob("golden-*")) < 450_000
    assert versions() == list(VERSIONS)
    goldens = shipped()
    convs = [golden.conv for golden in goldens]
    leaves = {type(c) for conv in convs for c in [conv, *getattr(conv, "steps", [])]}
    assert {cls.__name__ for cls in leaves} == set(ic.__all__) & {c.__name__ for c in leaves}
    assert len(leaves) >= 10
    assert {len(golden.spatial_shape) for golden in goldens} == {1, 2, 3, 4}
    assert {len(golden.batch_shape) for golden in goldens} == {0, 1, 2, 3}
    for version in VERSIONS:
        assert tuple(golden.name for golden in read(FOLDER, version)) == SELECTIONS[version]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    goldens = [make(case) for case in CASES if case.name in ("corner-bias", "chain-inverses")]
    first = [path.read_bytes() for path in write(tmp_path, goldens, 1)]
    assert [path.read_bytes() for path in write(tmp_path, goldens, 1)] == first
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_read_is_written_as_it_was(version: int, tmp_path: Path) -> None:
    for path in write(tmp_path, read(FOLDER, version), version):
        assert path.suffix == ".npz" or path.read_text() == (FOLDER / path.name).read_text()
    name = f"{file_name(version)}.npz"
    with np.load(tmp_path / name) as new, np.load(FOLDER / name) as old:
        assert sorted(new.files) == sorted(old.files)
        assert all(np.array_equal(new[name], old[name]) for name in old.files)


@pytest.mark.parametrize("array", ["y", "x2"])
def test_a_moved_output_is_named(
    array: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_arrays(folder, f"periodic-even-dilated/{array}", scaled)
    assert main(["--folder", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"moved: periodic-even-dilated: 1 of 60 values of {array}: {array}[0, 0, 3] is" in out
    assert "1 moved" in out.splitlines()[-1] or "over the bound" in out


@pytest.mark.parametrize("array", ["kernel", "x", "z"])
def test_a_moved_input_is_noticed(
    array: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_arrays(folder, f"periodic-even-dilated/{array}", scaled)
    assert main(["--folder", str(folder)]) == 1
    assert "moved: periodic-even-dilated: " in capsys.readouterr().out


@pytest.mark.parametrize("number", ["log_det", "condition"])
def test_a_moved_number_is_named(
    number: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_case(folder, lambda case: case.update({number: case[number] * (1 + 2e-6)}))
    assert main(["--folder", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"moved: corner-1d+: {'1 of 1 values of ' * (number == 'log_det')}{number}" in out


def test_a_wrong_core_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ic.ActNorm, "log_det", lambda self, shape: np.zeros(()))
    assert main(["--folder", str(folder)]) == 1
    assert "actnorm-2d: log_det by the core is off by" in capsys.readouterr().out


def _pickled(array: Any) -> bytes:
    member = io.BytesIO()
    np.lib.format.write_array(member, np.asarray([array, {}], dtype=object), allow_pickle=True)
    return member.getvalue()


@pytest.mark.parametrize("data", [_pickled(1.0), pickle.dumps([1.0]), b"no array"])
def test_a_foreign_member_is_refused(data: bytes, folder: Path) -> None:
    with zipfile.ZipFile(folder / f"{NAME}.npz", "a") as archive:
        archive.writestr("corner-1d+/w.npy", data)
    with pytest.raises(ValueError, match=r"golden file: .*(cannot be read|is no array)"):
        read(folder, 1)


def test_truncated_files_are_refused(folder: Path) -> None:
    for suffix in (".json", ".npz"):
        path = folder / f"{NAME}{suffix}"
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=f"golden file: {NAME}{suffix} cannot be read"):
            read(folder, 1)


def test_a_huge_archive_is_refused(folder: Path) -> None:
    edit_arrays(folder, "corner-1d+/x", lambda x: np.zeros(2**20))
    with pytest.raises(ValueError, match="bytes of arrays are over"):
        read(folder, 1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda case: case["operator"].update({"class": "Popen"}), "unknown class 'Popen'"),
        (lambda case: case["operator"].update({"class": ["Chain"]}), "unknown class"),
        (lambda case: case["operator"]["settings"].update(strict=1), "has the settings"),
        (lambda case: case["operator"]["settings"].update(mask="blob"), "mask: expected"),
        (lambda case: case["operator"]["arrays"].update(weight="corner-1d+/x"), "has the arrays"),
        (lambda case: case["operator"]["arrays"].update(kernel="nowhere"), "no array 'nowhere'"),
        (lambda case: case["operator"].update(parts={"0": {}}), "expected|has"),
        (lambda case: case.update(spatial_shape=[8]), r"x has shape \(2, 2, 7\), not \(2, 2, 8\)"),
        (lambda case: case.pop("tolerance"), "lacks 'tolerance'"),
        (lambda case: case.update(log_det="0"), "expected finite numbers"),
        (lambda case: case.update(operator="corner"), "expected an operator"),
    ],
)
def test_a_wrong_description_is_refused(edit: Edit, message: str, folder: Path) -> None:
    edit_case(folder, edit)
    with pytest.raises(ValueError, match=message):
        read(folder, 1)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("corner-1d+/x", lambda x: x.astype(np.float32), "float32 is not float64"),
        ("corner-1d+/x", lambda x: x * np.nan, "holds NaN or inf"),
        ("corner-1d+/kernel", lambda x: x.astype(np.int64), "kernel: expected a real floating"),
        ("corner-1d+/other", lambda x: np.zeros(2), "no case uses the arrays"),
    ],
)
def test_wrong_arrays_are_refused(name: str, edit: Edit, message: str, folder: Path) -> None:
    with np.load(folder / f"{NAME}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(folder / f"{NAME}.npz", **(arrays | {name: edit(arrays.get(name))}))
    with pytest.raises(ValueError, match=message):
        read(folder, 1)


def test_the_command_says_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / f"{NAME}.json").write_text('{"schema": "invconv-golden/2"}')
    assert main(["--folder", str(folder)]) == 2
    assert "expected the schema invconv-golden/1, got 'invconv-golden/2'" in capsys.readouterr().err
    assert main(["--write", str(folder / "nowhere")]) == 2
    assert main(["--folder", str(folder / "nowhere")]) == 2
    assert "a clone and an sdist of invconv have them" in capsys.readouterr().err
