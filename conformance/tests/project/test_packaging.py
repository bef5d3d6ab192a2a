"""The sdist and the wheel as a user installs them: imports, types, size, contents.

No index is asked: what they depend on is here. The workflow "Tests" installs it for each Python.
"""

import re
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import invconv
from tests.programs import ROOT

CONSUMER = """\
import numpy as np
import invconv

conv = invconv.EmergingConv.init(3, rng=np.random.default_rng(0))
gradients: dict[str, object] = conv.forward_vjp(np.ones((1, 3, 4, 4)), np.ones((1, 3, 4, 4)))[0]
axes: int = conv.ndim
wrong: str = conv.channels
"""


def output(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def nothing_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's PYTHONPATH from shadowing what is installed."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    output(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def outside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel installed and our dependencies at hand."""
    folder = tmp_path_factory.mktemp("environment")
    output(sys.executable, "-m", "venv", "--without-pip", folder)
    pip = "-m", "pip", "--python", folder / "bin" / "python"
    output(sys.executable, *pip, "install", "-q", "--no-deps", "--no-index", wheel)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_large(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names, sizes = archive.namelist(), Counter[str]()
        for entry in archive.infolist():
            assert entry.file_size < 2**20
            sizes[entry.filename.partition("/")[0]] += entry.compress_size
    assert sizes["invconv_conformance"] + sizes["invconv_benchmarks"] < 400_000
    assert wheel.stat().st_size < 2**20
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    adapters = {"invconv_torch", "invconv_jax", "invconv_cupy", "invconv_mlx"}
    assert tops == {"invconv", "invconv_conformance", "invconv_benchmarks", *adapters}
    assert {f"{top}/py.typed" for top in tops} <= set(names)
    pages = ("pages/base.html", "pages/conformance.html")
    for data in (*pages, "conformance.schema.json", "pytest.ini"):
        assert f"invconv_conformance/{data}" in names
    for data in ("common.cuh", "weights.cu", "solve.cu"):
        assert f"invconv/kernels/cuda/{data}" in names
    for data in ("cuda_on_cpu.h", "run.h", "main.cpp", "fibers.cpp"):
        assert f"invconv_conformance/cuda/on_cpu/{data}" in names
    for data in ("report/page.html", "results/benchmark.schema.json"):
        assert f"invconv_benchmarks/{data}" in names
    assert "invconv_benchmarks/density/presets.toml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("golden-" in name or name.endswith("README.md") for name in names)


@pytest.mark.slow
def test_the_wheel_imports_and_runs_from_an_empty_folder(outside: Path, tmp_path: Path) -> None:
    code = (
        "import invconv, invconv_conformance, invconv_benchmarks;"
        "from invconv.arrays.namespaces import backend;"
        "assert backend('numpy').__name__ == 'invconv.kernels.numpy_primitives';"
        "print(invconv.__file__)"
    )
    scripts = outside / "bin"
    assert output(scripts / "python", "-c", code, cwd=tmp_path).startswith(str(outside))
    assert "NumPy" in output(scripts / "invconv", "info", cwd=tmp_path)


@pytest.mark.slow
def test_an_index_takes_them(distributions: Path) -> None:
    pytest.importorskip("twine", reason="twine is not installed: pip install twine")
    files = sorted(map(str, distributions.iterdir()))
    stem = f"invconv-{invconv.__version__}"
    assert [Path(f).name for f in files] == [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]
    checked = output(sys.executable, "-m", "twine", "check", "--strict", *files)
    assert checked.count("PASSED") == 2
    with zipfile.ZipFile(files[0]) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    page, readme = text.partition("\n\n")[2], (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((?!https://)", page) == []  # links that would be dead there
    assert re.findall(r"(?ms)^```.*?^```", page) == re.findall(r"(?ms)^```.*?^```", readme)


@pytest.mark.slow
def test_the_wheel_type_checks_from_outside(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    python = str(outside / "bin" / "python")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "consumer.py"]
    done = subprocess.run(mypy, cwd=tmp_path, check=False, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert errors[0].startswith("consumer.py:7: error: Incompatible types in assignment")
