"""The command line as a user runs it: in a process of its own, or what it says and returns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from matplotlib.image import imread
from skimage.io import imsave

from invconv import _cli
from invconv_conformance import info
from tests.libraries.gpus import CUPY


def invconv(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invconv", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "80", "HOME": str(cwd)},
    )


def status(arguments: list[str]) -> int | str | None:
    """Run a command in this process; argparse exits."""
    try:
        return _cli.main(arguments)
    except SystemExit as end:
        return end.code


@pytest.mark.slow
def test_demo_on_an_image_of_the_users_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 100), dtype=np.uint8)
    imsave(tmp_path / "grey.png", pixels, check_contrast=False)
    done = invconv("demo", "--image", "grey.png", "--out", "picture.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "grey.png: 6 tiles of 32 x 32, squeezed to 12 x 16 x 16" in done.stdout
    rows = re.findall(r"(?:NumPy|array-api-strict|PyTorch|JAX)(?: +[-+\d.e]+){4}", done.stdout)
    assert len(rows) == 3 * 2 * 4
    assert "…" not in done.stdout
    assert ("not run: CuPy" in done.stdout) == (CUPY.absent() is not None)
    assert imread(tmp_path / "picture.png").shape[2] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("demo --image none.png", "--image: expected an image file, but there is no file"),
        ("demo --image small.png", "--image: expected at least 32 x 32 pixels, got"),
        ("demo --out nowhere/picture.png", "--out: there is no folder"),
        ("demo --out picture.tiff", "--out: expected a name that ends in .png or .jpg"),
        ("waltz", "invalid choice: 'waltz'"),
        ("conformence", "no command 'conformence': did you mean 'conformance'?"),
        ("conformance --namespace ../../etc", "--namespace: expected an import name"),
        ("conformance --json a --html a", "each another one"),
        ("conformance --json .", "expected a file for each of --json"),
        ("conformance --workers 0", "--workers: expected at least 1, got 0"),
        ("density train --device nowhere", "--device: PyTorch cannot use 'nowhere'"),
        ("density sample . --temperature nan", "a --temperature of at least 0"),
        ("diagnose none.safetensors --grid 4", "none.safetensors"),
        ("diagnose --example authors --picture a.tiff", "--picture: expected a name that ends"),
        ("diagnose --example growth --dtype float64", "the growth example has its own"),
        ("", "the following arguments are required: command"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    imsave("small.png", np.zeros((8, 8, 3), np.uint8), check_contrast=False)
    assert status(arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("demo --image text.png", "--image: text.png cannot be read as an image"),
        ("diagnose none.safetensors", "none.safetensors: No such file or directory"),
    ],
)
def test_a_process_exits_with_what_is_wrong(arguments: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    done = invconv(*arguments.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_comes_before_what_a_command_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "invconv_benchmarks.command", None)
    assert _cli.main(["benchmark", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "time forward, inverse and gradient" in shown
    assert "pip install 'invconv[benchmark]'" in shown
    assert _cli.main(["benchmark"]) == 2


@pytest.mark.parametrize(
    ("kernels", "wide", "advice"),
    [("Haswell", True, True), ("Haswell", False, False), ("SkylakeX", True, False)],
)
def test_info_says_where_blas_could_be_faster(
    kernels: str, wide: bool, advice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = [
        {"internal_api": "openblas", "architecture": kernels},
        {"internal_api": "openmp", "architecture": None},
    ]
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: pools)
    monkeypatch.setattr(info, "_wide_vectors", lambda: wide)
    first, *more = info._kernels()
    assert first == f"OpenBLAS's kernels: {kernels}"
    assert ["OPENBLAS_CORETYPE=SkylakeX" in line for line in more] == [True] * advice


def test_info(tmp_path: Path) -> None:
    done = invconv("info", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("NumPy", "PyTorch", "JAX", "CuPy", "extension linalg", "slogdet", "device1"):
        assert word in done.stdout
    for word in ("nflows", "numpyro", "invconv_jax.interop.FlowjaxBijection"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "invconv: interrupted\n"),
        (MemoryError("224 GiB"), 2, "invconv: not enough memory for this: 224 GiB\n"),
        (OSError("no space"), 2, "invconv: no space\n"),
    ],
)
def test_no_traceback_for_what_is_no_fault_of_ours(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(arguments: object) -> int:
        raise error

    monkeypatch.setattr(info, "run", run)
    assert _cli.main(["info"]) == status
    assert capsys.readouterr().err == message


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: object) -> int:
        return int("no number")

    monkeypatch.setattr(info, "run", run)
    with pytest.raises(ValueError, match="invalid literal"):
        _cli.main(["info"])


def test_what_is_missing_is_said_before_the_work(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['rich'] = sys.modules['matplotlib'] = None; import invconv as ic;"
        "ic.diagnose = None; from invconv._cli import main; sys.exit(main(sys.argv[1:]))"
    )
    picture = ("diagnose", "--example", "authors", "--picture", "a.png")
    for arguments, status, message in (
        (("info",), 0, "NumPy"),
        (picture, 2, "--picture needs matplotlib: pip install 'invconv[demo]'"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        assert message in done.stdout + done.stderr


def test_a_reader_who_has_read_enough_ends_it_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -m invconv diagnose --example growth | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.startswith(b"z = K x")
    assert done.stderr == b""
