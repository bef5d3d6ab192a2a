"""The commands of density models: compared on equal terms, evaluated, sampled, resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from matplotlib.image import imread  # noqa: E402

from invconv._cli import main  # noqa: E402
from invconv_benchmarks.density.compare import result  # noqa: E402
from invconv_benchmarks.density.data.dataset import noise_of  # noqa: E402
from invconv_benchmarks.density.data.users_data import load  # noqa: E402
from invconv_benchmarks.density.models.appearance import title  # noqa: E402
from invconv_benchmarks.density.models.architecture import MIXINGS  # noqa: E402
from invconv_benchmarks.density.models.build import build  # noqa: E402
from invconv_benchmarks.density.recipes import checkpoint  # noqa: E402
from invconv_benchmarks.density.recipes.preset import load_preset  # noqa: E402
from invconv_benchmarks.results import sealed  # noqa: E402

ROOT = Path(__file__).parents[3]
OPTIONS = ["density", "compare", "--preset", "digits", "--seeds", "0,1", "--steps", "3"]
OPTIONS += ["--learning-rate", "1e-2"]


def compare(folder: Path, *more: str) -> subprocess.Popen[str]:
    folders = [ROOT / name for name in (".", "backends", "conformance", "benchmarks")]
    paths = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "invconv", *OPTIONS, *more, "--out", str(folder)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a comparison that was interrupted and went on, and what was printed."""
    folder = tmp_path_factory.mktemp("comparison")
    first = compare(folder, "--workers", "1")
    deadline = time.monotonic() + 300
    while not list(folder.glob("*/outcome.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    out, error = first.communicate(timeout=300)
    assert first.returncode == 130, out + error
    assert "the same command goes on" in out
    assert not (folder / "result.json").exists()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/outcome.json")}
    assert 0 < len(before) < 26
    second = compare(folder)
    out, error = second.communicate(timeout=900)
    assert second.returncode == 0, out + error
    assert {path: path.stat().st_mtime_ns for path in before} == before  # not trained again
    return folder, out


@pytest.mark.slow
def test_the_result_has_every_row_and_what_the_models_say(compared: tuple[Path, str]) -> None:
    folder, out = compared
    found = result.read(folder / "result.json")
    assert [row.mixing for row in found.rows] == list(MIXINGS)
    assert found.threads == 1
    assert (found.training["steps"], found.seeds) == (3, [0, 1])
    data, means = load("digits"), {}
    for mixing in ("plain", "maf"):  # again, from the files, in float64, with scipy-free formulas
        for seed in (0, 1):
            stored = checkpoint.read(folder / f"{mixing}-seed{seed}-rate0.01" / checkpoint.NAME)
            model = build(stored.recipe.architecture, stored.image_shape, seed=9)
            model.load_state_dict(stored.average)
            x = torch.from_numpy((data.test + noise_of(data).astype(float)) / 256)
            with torch.no_grad():
                nats = -model.double().log_prob(x).mean() / 64
            means[mixing, seed] = float(nats) / np.log(2) + 8
    rows = {row.mixing: row for row in found.rows}
    for mixing in ("plain", "maf"):
        expected = [means[mixing, seed] for seed in (0, 1)]
        bits = rows[mixing].bits
        assert bits is not None
        assert bits.mean == pytest.approx(np.mean(expected), abs=1e-5)
        assert bits.std == pytest.approx(np.std(expected, ddof=1), abs=1e-5)
    pairs = [means["maf", seed] - means["plain", seed] for seed in (0, 1)]
    difference = rows["maf"].difference
    assert difference is not None
    assert difference.each == pytest.approx(pairs, abs=1e-5)
    assert "100 samples" in out
    for row in found.rows:
        assert row.images is not None
        assert row.samples is not None
        assert row.images.count == row.images.in_range_within
        assert row.samples.non_finite == 0
        assert f"{title(row.mixing)}" in out
    methods = {(time.model, time.method) for time in found.sampling}
    assert len(methods) == 17  # the three emerging ones and MAF have two
    assert imread(folder / "comparison.jpg").shape[0] > 500
    assert "…" not in out


@pytest.mark.slow
def test_all_rows_saw_the_same_images_and_noise(compared: tuple[Path, str]) -> None:
    folder, _ = compared
    stored = [checkpoint.read(folder / f"{m}-seed0-rate0.01" / checkpoint.NAME) for m in MIXINGS]
    assert len({c.data for c in stored}) == 1
    assert {c.recipe.seed for c in stored} == {0}
    trainings = {c.recipe.training for c in stored}
    assert len(trainings) == 1


@pytest.mark.slow
def test_a_result_that_was_changed_is_refused(compared: tuple[Path, str], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    text = (compared[0] / "result.json").read_text()
    path.write_text(text.replace('"quick": false', '"quick": true'))
    with pytest.raises(ValueError, match="the checksum does not match"):
        result.read(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="the file is cut off or damaged"):
        result.read(path)
    document = json.loads(text)
    del document["sweep"]
    sealed.write(path, document)
    with pytest.raises(ValueError, match=r"not of schema invconv-density/2.*'sweep'"):
        result.read(path)


@pytest.mark.slow
def test_another_comparison_in_the_same_folder_is_refused(
    compared: tuple[Path, str], tmp_path: Path
) -> None:
    shutil.copytree(compared[0], tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "maf-seed0-rate0.01")
    before = (tmp_path / "copy" / "result.json").read_bytes()
    process = compare(tmp_path / "copy", "--width", "4", "--workers", "1")
    out, error = process.communicate(timeout=100)
    assert process.returncode == 2, out
    assert "the checkpoint is of another run: width was 8 and is 4" in error
    assert "Traceback" not in error
    assert (tmp_path / "copy" / "result.json").read_bytes() == before


@pytest.mark.slow
def test_evaluate_and_sample(
    compared: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = compared
    found = result.read(folder / "result.json")
    (row,) = (row for row in found.rows if row.mixing == "qr")
    assert main(["density", "evaluate", str(folder / "qr-seed1-rate0.01"), "--count", "4"]) == 0
    out = capsys.readouterr().out
    (bits,) = re.findall(r"([\d.]+) bits/dim of 297 test images", out)
    assert float(bits) == pytest.approx(row.runs[1].bits, abs=1e-4)
    path = tmp_path / "grid.png"
    run = str(folder / "qr-seed1-rate0.01" / checkpoint.NAME)
    assert main(["density", "sample", run, "--count", "5", "--out", str(path)]) == 0
    assert "5 samples of digits, qr, seed 1, step 3; 5 are finite" in capsys.readouterr().out
    assert imread(path).shape[:2] == (16, 24)
    assert main(["density", "sample", run, "--out", str(tmp_path / "grid.tiff")]) == 2
    assert "--out: expected a name that ends in .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--seeds", "a"], "--seeds: expected numbers with commas between, got 'a'"),
        (["compare", "--workers", "0"], "expected at least one of --workers, of"),
        (["compare", "--mixings", "plain,none"], "--mixings: expected 'plain' or 'plu'"),
        (["compare", "--preset", "none"], "--preset: expected one of cifar10"),
        (["train", "--preset", "cifar10"], "--path: cifar10 needs the binary version of CIFAR-10"),
        (["train", "--levels", "6"], "image_shape: with levels=6 expected a height and a width"),
        (["train", "--learning-rate", "2"], "learning_rate: expected a number above 0 and below"),
        (["evaluate", "nowhere"], "nowhere: there is no such checkpoint"),
        (["sample", "nowhere", "--count", "0"], "expected a --count of at least 1"),
    ],
)
def test_wrong_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["density", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_papers_number_that_is_no_text_is_refused_before_the_work(tmp_path: Path) -> None:
    preset = tmp_path / "own.toml"
    preset.write_text(
        'data = "digits"\n[architecture]\nlevels = 1\ndepth = 1\nwidth = 4\n[training]\n'
        "batch = 8\nlearning_rate = 1e-3\nsteps = 2\n[paper]\nplain = 3.46\n"
    )
    with pytest.raises(ValueError, match="paper: plain: expected bits/dim as printed"):
        load_preset(str(preset))


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_saves_itself_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "invconv", "density", "train", "--preset", "digits"]
    command += ["--steps", "100000", "--mixing", "plain", "--out", str(tmp_path)]
    folders = [ROOT / name for name in (".", "backends", "conformance", "benchmarks")]
    paths = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "1300 tiles an epoch" in process.stdout.readline()
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 130
    (step,) = re.findall(r"stopped after (\d+) of 100000 steps; the same command goes on", out)
    assert checkpoint.read(tmp_path / checkpoint.NAME).step == int(step)
