"""``density train --dry-run`` says what a run takes, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from invconv._cli import main  # noqa: E402
from invconv_benchmarks.density.data.users_data import LAYOUTS, load, stand_in  # noqa: E402
from invconv_benchmarks.density.recipes.recipe import load_preset  # noqa: E402
from invconv_benchmarks.density.training import dry_run  # noqa: E402
from invconv_benchmarks.density.training.trainer import Trainer  # noqa: E402


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let steps take 2, 4, 6, 8 and 10 seconds."""
    taken = iter([2.0, 4.0, 6.0, 8.0, 10.0])

    def seconds(call: Any) -> float:
        call()
        return next(taken)

    monkeypatch.setattr("invconv_benchmarks.measure.timing.seconds", seconds)


@pytest.mark.usefixtures("clock")
def test_it_prints_what_a_run_takes_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["density", "train", "--preset", "digits", "--mixing", "plain", "--dry-run"]) == 0
    said = capsys.readouterr().out
    images, recipe = load("digits"), load_preset("digits").recipe("plain")
    model = Trainer(recipe, images).model
    assert f"{sum(p.numel() for p in model.parameters()):,}" in said
    assert "6 s (2 s to 10 s), 16 images" in said
    epoch = len(images) / 16
    assert f"{6 * epoch / 60:.3g} min, {epoch:,.0f} steps, {len(images):,} images" in said
    assert "2 min, 20 steps" in said
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_holds_is_what_its_tensors_take() -> None:
    trainer = Trainer(load_preset("digits").recipe("plain"), load("digits"))
    trainer.advance()
    tensors = [*trainer.checkpoint().tensors.values()]
    tensors += [p.grad for p in trainer.model.parameters()]
    real = sum(t.numel() * t.element_size() for t in tensors if t.numel() > 1)
    found = dry_run.measure(trainer.recipe, trainer.data)
    assert found.held == pytest.approx(real, rel=0.01)


def test_the_peak_is_that_of_the_process() -> None:
    """In a new process: an old one may have as much memory at hand that others have freed."""
    program = (
        "from invconv_benchmarks.density.data.users_data import load\n"
        "from invconv_benchmarks.density.recipes.recipe import load_preset\n"
        "from invconv_benchmarks.density.training import dry_run\n"
        "recipe = load_preset('digits').recipe('plain')\n"
        "print(dry_run.measure(recipe, load('digits')).peak)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"None" or int(done.stdout) > 2**20


@pytest.mark.parametrize("name", LAYOUTS)
def test_noise_stands_for_images_of_a_known_size(name: str) -> None:
    noise = stand_in(name)
    assert (noise is None) == (name in ("galaxy", "folder"))
    if noise is not None:
        side = 64 if name == "imagenet64" else 32
        assert noise.image_shape == (3, side, side)
        assert len(noise) == (50_000 if name == "cifar10" else 1_281_149)
        assert noise.tile(len(noise) - 1).std() > 60
