"""The command line as a user runs it, the gallery too: what it says, returns and draws."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from skimage import data
from skimage.io import imsave

import invconv as ic
from invconv import _cli
from invconv_benchmarks.gallery import command
from invconv_conformance import info
from tests.programs import python
from tests.selected import CUPY, without_gpu

NO_GPU = "--device: cuda needs an NVIDIA GPU with its driver, and PyTorch, JAX or CuPy built"
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def status(arguments: list[str]) -> int | str | None:
    try:
        return _cli.main(arguments)
    except SystemExit as end:
        return end.code


@pytest.mark.slow
def test_demo_on_an_image_of_the_users_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 100), dtype=np.uint8)
    imsave(tmp_path / "[grey].png", pixels, check_contrast=False)
    options = ["--image", "[grey].png", "--out", "picture.png"]
    done = python("-m", "invconv", "demo", *options, cwd=tmp_path, COLUMNS="80")
    assert "[grey].png: 6 tiles of 32 x 32, squeezed to 12 x 16 x 16" in done.stdout
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
        (
            "demo --output picture.png",
            "unrecognized arguments: --output picture.png; did you mean --out?",
        ),
        ("waltz", "invalid choice: 'waltz'"),
        ("conformence", "no command 'conformence': did you mean 'conformance'?"),
        ("conformance --namespace ../../etc", "--namespace: expected an import name"),
        ("conformance --json a --html a", "each another one"),
        ("conformance --json .", "expected a file for each of --json"),
        ("conformance --library numpy --json /dev/null", "expected a file for each of --json"),
        ("conformance --library numpy --json /proc/x", "/proc: expected a folder to write in: "),
        ("conformance --seconds 0", "--seconds: expected a positive number, got '0'"),
        ("conformance --workers 0", "--workers: expected at least 1, got 0"),
        ("density train --device nowhere", "--device: PyTorch cannot use 'nowhere'"),
        ("density sample . --temperature nan", "a --temperature of at least 0"),
        ("diagnose none.safetensors --grid 4", "none.safetensors"),
        ("diagnose --example authors --picture a.tiff", "--picture: expected a name that ends"),
        ("diagnose --example growth --dtype float64", "the growth example has its own"),
        ("conformance --library nupmy", "--library: expected all, or some of numpy, array_api_s"),
        pytest.param("conformance --library cupy", "--library: CuPy: not", marks=without_gpu),
        pytest.param("conformance --namespace cupy", "--library: CuPy: not", marks=without_gpu),
        ("conformance --library numpy -k emergent", "nothing was checked: no test has such a name"),
        ("conformance --library numpy --device cuda:0", "some of cpu, got 'cuda:0', which needs"),
        ("conformance --library torch --mode inductor -k 'corner-bias and layout'", "was checked"),
        ("conformance --library numpy --dtype float16 -k huge-conv1x1", "nothing was checked"),
        ("conformance --library jax -k 'periodic-k1:: and ::errors'", "with another --mode alone"),
        ("conformance --library numpy -k 'actnorm-2d and autodiff'", "these laws say nothing"),
        ("conformance --json /no/such/folder/x.json", "/no/such/folder: expected a folder"),
        ("conformance --namespace no.such", "--namespace: cannot import no.such"),
        ("conformance --namespace math", "--namespace: math has no asarray"),
        ("conformance --namespace numpy._core", "arrays of numpy._core are of numpy; name that"),
        ("conformance --namespace jax.numpy", "arrays of jax.numpy are of jax; name that one"),
        ("conformance --namespace numpy --library numpy", "expected one of them"),
        ("benchmark --dtype int8", "expected some of float32, float64 for the suite all, got 'i"),
        ("benchmark overhead --dtype float64", "some of float32 for the suite overhead, got 'flo"),
        ("benchmark --threads 0", "--threads: expected numbers from 1 to"),
        ("benchmark --library abacus", "--library: expected all, or some of"),
        pytest.param("benchmark inverse --device cuda", NO_GPU, marks=without_cuda),
        ("benchmark odd --library numpy --out /proc", "/proc: expected a folder to write in: "),
        (
            "benchmark precision --device cpu",
            "suite precision takes --quick and --out alone, got --",
        ),
        ("benchmark precision --only 'co*'", "precision takes --quick and --out alone, got --only"),
        ("benchmark filters --seed 1", "suite filters takes --quick and --out alone, got --seed"),
        (
            "benchmark survey --only 'co*'",
            "--only: expected numbers with commas between, got 'co*'",
        ),
        ("benchmark checks --only Nothing", "the suite checks has nothing to run"),
        ("density compare --mixings plain,none", "--mixings: expected 'plain' or"),
        ("density train --preset digits --mixing no:own --dry-run", "--mixing no:own: No module"),
        ("density train --preset cifar10", "--path: cifar10 needs the binary version of CIFAR-10"),
        ("density compare --learning-rate 0 --learning-rates 1", "or --learning-rates, got both"),
        (
            "density compare --learning-rates .01,1.5",
            "learning_rate: expected a number from 0 to b",
        ),
        ("density compare --seeds 0,-1", "seed: expected a positive integer up to"),
        ("density sample . --seed 4294967296", "--seed: expected a number from 0 to 2147483647"),
        ("density evaluate nowhere", "nowhere: there is no such checkpoint"),
        ("density sample nowhere --count 0", "expected a --count of at least 1"),
        ("example echo --out a.gif", "expected a name that ends in .png"),
        ("example echo --out no/a.png", "there is no folder"),
        ("example echo --out /proc/a.png", "/proc: expected a folder to write in: "),
        ("example echo --path .", "folder takes yours"),
        ("docs --out small.png", "--out: expected a new folder, or one with pages of this command"),
        ("", "the following arguments are required: command"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    arguments: str, message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    imsave("small.png", np.zeros((8, 8, 3), np.uint8), check_contrast=False)
    assert status(shlex.split(arguments)) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small.png"]


@pytest.mark.parametrize(("command", "lacks"), [("benchmark", "jsonschema"), ("docs", "material")])
def test_help_comes_before_what_a_command_needs(
    command: str, lacks: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.delitem(sys.modules, _cli.COMMANDS[command][0], raising=False)
    monkeypatch.setitem(sys.modules, lacks, None)
    assert _cli.main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert _cli._SUMMARIES[command] in shown
    assert f"{command} needs {lacks}: pip install 'invconv[{command}]'" in shown
    assert _cli.main([command]) == 2


def test_info(capsys: Any) -> None:
    assert _cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    words = ["NumPy", "PyTorch", "JAX", "CuPy", "extension linalg", "slogdet", "device1", ", abs, "]
    words += [f"invconv {ic.__version__}, Python 3", "native primitives of NumPy: ", "core needs"]
    words += ["on the CPU: one compiled kernel (llvmlite", "invconv_jax.interop.FlowjaxBijection"]
    for word in (*words, "nflows", "numpyro"):
        assert word in shown


def test_no_traceback_for_what_is_no_fault_of_ours(monkeypatch: Any, capsys: Any) -> None:
    for error, status, message in (
        (KeyboardInterrupt(), 130, "invconv: interrupted\n"),
        (MemoryError("224 GiB"), 2, "invconv: not enough memory for this: 224 GiB\n"),
        (OSError("no space"), 2, "invconv: no space\n"),
    ):
        monkeypatch.setattr(info, "run", Mock(side_effect=error))
        assert _cli.main(["info"]) == status
        assert capsys.readouterr().err == message
    monkeypatch.setattr(info, "run", lambda arguments: int("no number"))
    with pytest.raises(ValueError, match="invalid literal"):
        _cli.main(["info"])


@pytest.mark.slow
def test_what_is_missing_or_no_image_is_said_before_the_work(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('jax', 'matplotlib', 'rich', 'torch')));"
        "import invconv as ic; ic.diagnose = None; from invconv._cli import main;"
        "sys.exit(main(sys.argv[1:]))"
    )
    assert "NumPy" in python("-c", program, "info", cwd=tmp_path).stdout
    picture = ("diagnose", "--example", "authors", "--picture", "a.png")
    done = python("-c", program, *picture, cwd=tmp_path, status=2)
    assert "--picture needs matplotlib: pip install 'invconv[demo]'" in done.stderr
    (tmp_path / "text.png").write_text("no image")
    done = python("-m", "invconv", "demo", "--image", "text.png", cwd=tmp_path, status=2)
    assert "--image: text.png cannot be read as an image" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_installed_command_finds_modules_where_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "own_rows.py").touch()
    (tmp_path / "invconv_command.py").write_text(
        "import sys; from invconv._cli import main; sys.exit(main())"
    )
    arguments = ["density", "train", "--mixing", "own_rows:none", "--dry-run"]
    paths = os.pathsep.join(filter(None, sys.path))
    command = [tmp_path / "invconv_command.py", *arguments]
    done = python(*command, cwd=tmp_path / "here", status=2, PYTHONPATH=paths)
    assert "--mixing: expected 'plain'" in done.stderr


def test_a_reader_who_has_read_enough_ends_it_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -m invconv diagnose --example growth | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.startswith(b"z = K x")
    assert done.stderr == b""


FOUND = {
    "deblur": r"width 1\.5: condition 14, error \d\.\de-1[45], of 8 bits 0\.02",
    "whiten": r"grass: 1\.01 bits a pixel.*\de-1[45] back",
    "random_field": r"log p off by \de-1\d of the dense",
    "lattice_field": r"effective sample size: [3-9]\d\.\d% of 20,000",
    "echo": r"88200 samples: off by \de-1[567] at most",
    "volume": r"110592 of 110592 voxels right in float32",
    "folder": r"[3-6]\.\d\d bits/dim of tiles that it has not seen",
    "deep_field": r"least squares, damp 0\.2: off by 0\.0249 .*\n.*wiener.*: off by 0\.0271",
    "heat": r"a wave decays by 0\.998952 a step: off by \de-1[56]",
    "filter": r"PyTorch: gain off by [1-9]\.\de-03 .*\nJAX: gain off by [1-9]\.\de-03",
    "vowel": r"frequencies off by [1-9]\S*e-0[4-9] Hz at most, by 532 at the start",
    "stars": r"invconv.*the best of 12 .* 50\.\d .* 4\.\d.*\n.*wiener.* 186 .*\n.* 14\d .* 5\.\d",
    "turn": r"PyTorch: off by \S*e-05 .* to \d\.\de-0[67] deg.*\nJAX: off by \S*e-05 .*e-0[67] deg",
    "smooth": r"of steps at edges 9\d% are left, of others 5\d%",
    "three_libraries": r"sampled in NumPy: \de-0[67] from PyTorch",
}


def test_the_list_is_the_folder() -> None:
    files = {p.stem for p in Path(command.__file__).parent.glob("*.py")}
    assert files == {*command.NAMES, "command", "__init__"} == {*FOUND, "command", "__init__"}
    for name in command.NAMES:
        assert re.fullmatch(r"[A-Z].{30,}[.:].*", command.summary(name))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.parametrize("name", command.NAMES)
def test_it_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.png"
    assert _cli.main(["example", name, "--out", str(out)]) == 0
    assert re.search(FOUND[name], capsys.readouterr().out)
    assert imread(out).std() > 0.05


@pytest.mark.slow
def test_a_folder_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("coffee", "chelsea", "astronaut", "rocket"):
        imsave(images / f"{name}.png", getattr(data, name)())
    options = ["--path", str(images), "--out", str(tmp_path / "a.png")]
    assert _cli.main(["example", "folder", *options]) == 0
    assert re.search(FOUND["folder"], capsys.readouterr().out)
