"""``density train --dry-run`` says what a run takes, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from invconv._cli import main  # noqa: E402
from invconv_benchmarks.density.data.users_data import LAYOUTS, load, stand_in  # noqa: E402
from invconv_benchmarks.density.recipes.preset import load_preset  # noqa: E402
from invconv_benchmarks.density.training import dry_run  # noqa: E402
from invconv_benchmarks.density.training.module import DensityModule  # noqa: E402
from invconv_conformance import printing  # noqa: E402


def test_it_prints_what_a_run_takes_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["density", "train", "--preset", "digits", "--mixing", "plain", "--dry-run"]) == 0
    assert "1,300 images" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    module = DensityModule(load_preset("digits").recipe("plain"), load("digits"))
    expected = dry_run.Expected(module, 2_000_000, [2.0, 4.0, 6.0, 8.0, 10.0])
    printing.console().print(expected.table())
    said, count = capsys.readouterr().out, sum(p.numel() for p in module.flow.parameters())
    assert f"{count:,}" in said
    assert f"2 MB at the peak, {5 * 4 * count / 1000:.3g} kB" in said
    assert "6 s (2 s to 10 s), 16 images" in said
    assert "8.12 min, 81 steps, 1,300 images" in said
    assert "2 min, 20 steps" in said


def test_the_peak_is_that_of_the_process() -> None:
    """In a new process: an old one may have as much memory at hand that others have freed."""
    program = (
        "from invconv_benchmarks.density.data.users_data import load\n"
        "from invconv_benchmarks.density.recipes.preset import load_preset\n"
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
