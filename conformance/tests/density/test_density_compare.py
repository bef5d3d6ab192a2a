"""Comparisons: the sweep of rates, paired statistics, files, commands, rows of every kind."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn

from invconv._cli import main
from invconv_benchmarks.density import comparison, evaluation, rows
from invconv_benchmarks.density.data import load, noise_of
from invconv_benchmarks.density.recipe import CHECKPOINT, load_preset, read_checkpoint
from invconv_benchmarks.density.training import DivergedError
from invconv_benchmarks.results.result import read_document
from invconv_torch import ActNorm
from invconv_torch.flows import Multiscale
from tests.density.test_density_data import RNG
from tests.flows.small_flows import jacobians, moved
from tests.programs import ENVIRONMENT, python

pytestmark = pytest.mark.slow  # density models are checked nightly
MIXINGS = ("plain", "emerging", "periodic")
OPTIONS = ["density", "compare", "--preset", "digits", "--seeds", "0,1", "--steps", "3"]
OPTIONS += ["--learning-rate", "1e-2", "--mixings", ",".join(MIXINGS)]


@pytest.mark.parametrize(
    ("loss", "tried", "best"),
    [
        (lambda rate: abs(math.log(rate / 0.03)), [0.01, 0.03, 0.1], 0.03),
        (lambda rate: abs(math.log(rate / 0.1)), [0.01, 0.03, 0.1, 0.3], 0.1),
        (lambda rate: abs(math.log(rate / 0.003)), [0.001, 0.003, 0.01, 0.03, 0.1], 0.003),
        (lambda rate: -rate if rate < 0.05 else math.inf, [0.01, 0.03, 0.1], 0.03),
        (lambda rate: -rate, [0.01, 0.03, 0.1, 0.3], 0.3),
        (lambda rate: math.inf, [rate for rate in rows.RATES if rate <= 0.1], 1e-5),
    ],
)
def test_a_sweep_goes_on_until_the_best_is_inside_and_the_test_part_sees_no_other(
    loss: Callable[[float], float], tried: list[float], best: float, monkeypatch: Any
) -> None:
    reported = []

    def outcome(_: Any, mixing: str, seed: int, rate: float, data: Any, *, final: bool) -> Any:
        if final:
            reported.append((seed, rate))
        value = loss(rate) + (-1) ** seed * (rate < 0.03)  # of one seed alone the least is best
        return {"error": ""} if value == math.inf else {"validation": value, "bits": [1]}

    monkeypatch.setattr(rows, "outcome_of", outcome)
    preset = load_preset("digits")
    comparison = rows.Comparison(preset, {}, (0, 1), rows.around(0.03), None, Path("nowhere"))
    row = rows.train_row(comparison, "plain", "digits")
    assert (sorted(row.sweep), row.rate) == (tried, best)
    assert reported == [(0, best), (1, best)]


def test_an_outcome_that_is_cut_off_is_found_anew(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rows, "train", Mock(side_effect=DivergedError("step 1: a NaN")))
    monkeypatch.setattr(rows, "_stop", Mock())
    comparison = rows.Comparison(load_preset("digits"), {}, (0,), (0.01,), None, tmp_path)
    path = comparison.run_folder("plain", 0, 0.01) / "outcome.json"
    path.parent.mkdir()
    for text in ('{"recipe": {', "[]"):
        path.write_text(text)
        found = rows.outcome_of(comparison, "plain", 0, 0.01, load("digits"), final=True)
        assert json.loads(path.read_text())["outcome"] == found == {"error": "step 1: a NaN"}
    close = np.nextafter(0.01, 1)
    assert {comparison.run_folder("plain", 0, rate).name for rate in (0.01, float(close))} == {
        "plain-seed0-rate0.01",
        "plain-seed0-rate0.010000000000000002",
    }


def test_differences_are_paired_by_seed_and_a_run_that_stopped_is_left_out() -> None:
    def row(mixing: str, *seeds: list[float]) -> rows.RowRuns:
        history = [{"seconds_per_step": seconds} for seconds in (1.0, 2.0, 9.0)]
        bad, good = {"error": "a NaN"}, {"parameters": 5, "history": history}
        outcomes = [good | {"bits": bits} if bits else bad for bits in seeds]
        return rows.RowRuns(mixing, {}, 0.01, dict(enumerate(outcomes)))

    plain = row("plain", [3.0, 4.0], [3.1, 4.1], [3.2, 4.2])
    rows_of_three = [row("periodic", [2.9, 4.15], [], [3.1, 4.2]), plain, row("qr", [3.5, 3.5])]
    found = comparison.statistics_of(rows_of_three)["rows"]
    assert [entry["mixing"] for entry in found] == ["plain", "qr", "periodic"]
    assert found[0]["difference"] is None
    assert found[0]["seconds_per_step"] == 2.0
    assert found[1]["difference"]["lower"] == 0  # of one that is equal
    assert found[0]["bits"]["std"] == pytest.approx(0.1)
    difference = found[2]["difference"]
    assert difference["each"] == pytest.approx([0.025, -0.05])
    assert difference["mean"] == pytest.approx(-0.0125)
    assert (difference["count"], difference["lower"]) == (2, 1)
    assert found[2]["runs"][1] == {"seed": 1, "error": "a NaN", "bits": None, "history": []}


def compare(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "invconv", *OPTIONS, *more, "--out", str(folder)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=ENVIRONMENT, **pipes)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a comparison that was interrupted and went on, and its output."""
    folder = tmp_path_factory.mktemp("comparison")
    first = compare(folder, "--workers", "1")
    deadline = time.monotonic() + 300
    while not list(folder.glob("*/outcome.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    out, error = first.communicate(timeout=300)
    assert first.returncode == 130, out + error
    assert "the same command goes on" in out
    assert not (folder / "result.json").exists()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/outcome.json")}
    assert 0 < len(before) < 6
    second = compare(folder)
    out, error = second.communicate(timeout=900)
    assert second.returncode == 0, out + error
    assert {path: path.stat().st_mtime_ns for path in before} == before  # not trained again
    return folder, out


def test_the_result_is_what_the_models_say_once_more(compared: tuple[Path, str]) -> None:
    folder, out = compared
    data, means = load("digits"), dict[tuple[str, int], float]()
    found = read_document(folder / "result.json", comparison.SCHEMA)
    assert [row["mixing"] for row in found["rows"]] == list(MIXINGS)
    for mixing in MIXINGS:  # again, from the files, in float64
        for seed in (0, 1):
            stored, model = evaluation.restore(folder / f"{mixing}-seed{seed}-rate0.01")
            assert (stored.data, stored.recipe.seed) == (data.fingerprint, seed)
            x = torch.from_numpy((data.test + noise_of(data).astype(float)) / 256)
            with torch.no_grad():
                nats = -model.double().log_prob(x).mean() / 64
            means[mixing, seed] = float(nats) / np.log(2) + 8
    for row in found["rows"]:
        bits = [means[row["mixing"], seed] for seed in (0, 1)]
        assert row["bits"]["mean"] == pytest.approx(np.mean(bits), abs=1e-5)
        if row["difference"] is not None:
            pairs = [means[row["mixing"], seed] - means["plain", seed] for seed in (0, 1)]
            assert row["difference"]["each"] == pytest.approx(pairs, abs=1e-5)
    assert [time["model"] for time in found["sampling"]] == list(MIXINGS)
    assert [trip["mixing"] for trip in found["round_trips"]] == list(MIXINGS)
    assert all(trip["image_errors"][0] < 1e-4 for trip in found["round_trips"])
    assert imread(folder / "comparison.jpg").shape[0] > 500
    assert "emerging 3×3" in out


def test_another_comparison_in_the_same_folder_is_refused(compared: tuple[Path, str]) -> None:
    text = (compared[0] / "result.json").read_text()
    out, error = compare(compared[0], "--width", "4").communicate(timeout=200)
    assert "the checkpoint is of another run: width was 8 and is 4" in error, out
    assert "Traceback" not in error
    assert (compared[0] / "result.json").read_text() == text


def test_evaluate_and_sample(compared: tuple[Path, str], tmp_path: Path, capsys: Any) -> None:
    run = compared[0] / "periodic-seed1-rate0.01"
    rows_found = read_document(compared[0] / "result.json", comparison.SCHEMA)["rows"]
    (row,) = (r for r in rows_found if r["mixing"] == "periodic")
    assert main(["density", "evaluate", str(run), "--count", "4"]) == 0
    out = capsys.readouterr().out
    (bits,) = re.findall(r"([\d.]+) bits/dim of 297 test images", out)
    assert float(bits) == pytest.approx(row["runs"][1]["bits"], abs=1e-4)
    (off,) = re.findall(r"4 images come back from their noise, off by (\S+) at most", out)
    assert float(off) < 1e-5
    assert "of 4 samples 0 are not finite, the others come back to their noise, off by " in out
    path = tmp_path / "grid.png"
    arguments = ["density", "sample", str(run / CHECKPOINT), "--count", "5", "--out"]
    assert main([*arguments, str(path)]) == 0
    assert "5 samples of digits, periodic, seed 1, step 3" in capsys.readouterr().out
    assert imread(path).shape[:2] == (16, 24)
    assert main([*arguments, str(tmp_path / "grid.tiff")]) == 2
    assert "--out: expected a name that ends in .png" in capsys.readouterr().err


class Off(nn.Module):  # type: ignore[misc]
    """A layer whose inverse is off by 1/16 at one of 64 numbers."""

    def forward(self, x: Any) -> Any:
        return x, x.new_zeros(len(x))

    def inverse(self, z: Any) -> Any:
        x = z.clone()
        x[..., 0, 0] += 1 / 16
        return x, z.new_zeros(len(z))


def test_round_trips_find_an_error_that_is_known_and_count_samples() -> None:
    data = load("digits")
    flow = Multiscale((1, 8, 8), {"off": Off(), "scale": ActNorm(1), "last": ActNorm(1)}).eval()
    with torch.no_grad():
        flow.layers["scale"].log_scale.fill_(math.log(40))  # all samples are within 1/2 ± 1/4
        found = evaluation.round_trips(flow, data, 8)
        assert found.image_errors == pytest.approx((1 / 16, 1 / 16 / 64), rel=1e-4)
        assert found.noise_errors == pytest.approx((40 / 16, 40 / 16 / 64), rel=1e-4)
        assert (found.count, found.not_finite, found.in_range, found.outside) == (8, 0, 8, 0)
        assert 6 < found.digits < 8
        every = evaluation.round_trips(flow, data, 300)  # of which 297 images are there
        assert (every.count, every.in_range) == (300, 300)
        assert every.image_errors == pytest.approx(found.image_errors, rel=1e-4)
        flow.layers["last"].log_scale.fill_(-3.0)  # samples are 20 times as wide
        assert evaluation.round_trips(flow, data, 8).in_range < 8
        flow.layers["last"].log_scale.fill_(-95.0)
        lost = evaluation.round_trips(flow, data, 8)
    assert (lost.not_finite, lost.in_range, lost.noise_errors, lost.outside) == (8, 0, (), None)
    odd = torch.tensor([math.nan, math.inf, -math.inf, 0.999]).reshape(1, 1, 2, 2)
    assert evaluation.pixels(flow, odd).ravel().tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_end_saves_itself(kind: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "invconv", "density", "train", "--preset", "digits"]
    command += ["--steps", "100000", "--mixing", "plain", "--out", str(tmp_path)]
    unbuffered = ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=unbuffered, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "1300 tiles an epoch" in process.stdout.readline()
    time.sleep(5)
    process.send_signal(kind)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 130
    (step,) = re.findall(r"stopped after (\d+) of 100000 steps; the same command goes on", out)
    assert read_checkpoint(tmp_path / CHECKPOINT).step == int(step)


@pytest.mark.parametrize("mixing", ["real_nvp", "maf"])
def test_densities_are_those_of_the_dense_jacobian_and_images_come_back(mixing: str) -> None:
    recipe = load_preset("digits").recipe(mixing, depth=3)
    flow, x = moved(recipe.flow((3, 4, 4))), torch.from_numpy(RNG.uniform(0, 1, (2, 3, 4, 4)))
    for jacobian in jacobians(flow, x):
        assert (jacobian.abs() > 1e-8).double().mean() > 0.5  # all numbers meet
    for name, layer in flow.layers.items():
        out, log_det = layer(x)
        torch.testing.assert_close(layer.inverse(out)[1], -log_det, msg=name)
        x = out[0] if isinstance(out, tuple) else out


OWN = """
import numpy as np
from invconv.extend import LogScale, Pointwise, array

class Stretched(Pointwise, mixing="stretched"):
    logs: object = array("C")

    def factors(self):
        return [(LogScale(), self.logs)]

    def factors_vjp(self, bars):
        return {"logs": bars[0]}

    @classmethod
    def drawn(cls, channels, rng):
        return {"logs": np.zeros(channels)}
"""


def test_a_row_of_every_kind_of_word_and_of_a_class_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own_rows.py").write_text(OWN)
    words = ["plain", "householder", "emerging_circulant", "own_rows:stretched", "real_nvp", "maf"]
    options = ["--preset", "digits", "--quick", "--steps", "3", "--mixings", ",".join(words)]
    paths = os.pathsep.join((str(tmp_path), *sys.path))
    command = ["-m", "invconv", "density", "compare", *options, "--out", "runs"]
    done = python(*command, cwd=tmp_path, PYTHONPATH=paths)
    rows = read_document(tmp_path / "runs" / "result.json", comparison.SCHEMA)["rows"]
    assert {row["mixing"] for row in rows} == set(words)
    assert all(row["bits"]["mean"] < 9 for row in rows)
    assert "Real NVP" in done.stdout
