"""The rooms: imports go downwards only, folders hold at most 16 files, files at most 300 lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TOPS = ("invconv", "backends", "conformance", "benchmarks")
MOST_FILES = 16
MOST_LINES = 300
LINT = "from importlinter.cli import lint_imports_command as lint; lint()"

TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
UPWARDS = {
    "a lower room": (
        "invconv/arrays/stencil.py",
        "from invconv.kernels import primitives",
        "Rooms of the core",
    ),
    "for type checking": (
        "invconv/trust/norms.py",
        TYPES + "from invconv.operators.chain import Chain",
        "Rooms of the core",
    ),
    "in a function": (
        "invconv/trust/measured.py",
        "def late():\n    from invconv.stability import guard",
        "Rooms of the core",
    ),
    "the base, of a class": (
        "invconv/operators/base/calls.py",
        "from invconv.operators import periodic",
        "Rooms and classes of invconv.operators",
    ),
    "the compiled kernel": (
        "invconv/kernels/cpu/geometry.py",
        "from invconv.kernels import wavefront",
        "Rooms of invconv.kernels: cpu imports primitives only",
    ),
    "a framework": (
        "invconv/files/description.py",
        "import torch",
        "The core imports no framework",
    ),
    "an adapter": (
        "invconv/stability/advice.py",
        "import invconv_jax",
        "Packages: the core knows no adapter, no adapter another",
    ),
    "a circle": (
        "invconv/arrays/namespaces.py",
        "from invconv.arrays import stencil",
        "No circles, between modules or rooms",
    ),
    "conformance": (
        "conformance/invconv_conformance/cases/case.py",
        "from invconv_conformance.laws import law",
        "Rooms of invconv_conformance",
    ),
    "benchmarks": (
        "benchmarks/invconv_benchmarks/measure/timing.py",
        "from invconv_benchmarks.results import row",
        "Rooms of invconv_benchmarks",
    ),
    "density": (
        "benchmarks/invconv_benchmarks/density/data/shipped.py",
        "from invconv_benchmarks.density.recipes import recipe",
        "Rooms of invconv_benchmarks.density",
    ),
}


def ours() -> list[Path]:
    """Return the project's files, relative to its root: no caches and no hidden ones."""
    found = [path.relative_to(ROOT) for top in TOPS for path in (ROOT / top).rglob("*")]
    hidden = (".", "__pycache__")
    return [
        path
        for path in found
        if (ROOT / path).is_file() and not any(part.startswith(hidden) for part in path.parts)
    ]


def linted(tree: Path) -> tuple[int, str]:
    """Return the exit status of ``lint-imports`` in a copy of the project, and what it says."""
    paths = [str(tree), *(str(tree / top) for top in TOPS[1:])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
    command = [sys.executable, "-c", LINT, "--no-cache"]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the packages, without their data."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path in ours():
        if path.suffix == ".py" and path.parts[:2] != ("conformance", "tests"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def test_imports_go_downwards() -> None:
    status, said = linted(ROOT)
    assert status == 0, said
    assert " 0 broken" in said


@pytest.mark.parametrize("name", UPWARDS)
def test_an_import_upwards_is_found(name: str, copy: Path) -> None:
    file, planted, contract = UPWARDS[name]
    with (copy / file).open("a") as stream:
        stream.write(f"\n{planted}\n")
    status, said = linted(copy)
    assert status == 1, said
    assert f"{contract} BROKEN" in said


def test_a_room_that_has_no_place_is_found(copy: Path) -> None:
    (copy / "invconv" / "misc").mkdir()
    (copy / "invconv" / "misc" / "__init__.py").touch()
    status, said = linted(copy)
    assert status == 1, said
    assert "Rooms of the core BROKEN" in said


def test_no_folder_has_many_files() -> None:
    files = Counter(path.parent.as_posix() for path in ours())
    assert {name: n for name, n in files.items() if n > MOST_FILES} == {}


def test_no_file_is_long() -> None:
    lines = {
        path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in ours()
        if path.suffix == ".py"
    }
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}
