"""The gallery: each program runs, says what it found, and leaves a picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.image import imread
from skimage import data
from skimage.io import imsave

from invconv._cli import main
from invconv_benchmarks.gallery import command

FOUND = {
    "deblur": r"width 1\.5: condition 14, error \d\.\de-1[45], of 8 bits 0\.02",
    "whiten": r"grass: 1\.01 bits a pixel.*\de-1[45] back",
    "random_field": r"log p off by \de-1\d of the dense",
    "lattice_field": r"effective sample size: [3-9]\d\.\d% of 20,000",
    "echo": r"88200 samples: off by \de-1[567] at most",
    "volume": r"110592 of 110592 voxels right in float32",
    "folder": r"[3-6]\.\d\d bits/dim of tiles that it has not seen",
    "deep_field": r"least squares, damp 0\.19: off by 0\.025 .*\n.*wiener.*: off by 0\.0269",
    "heat": r"a wave decays by 0\.998952 a step: off by \de-1[56]",
    "filter": r"PyTorch: gain off by [1-9]\.\de-03 .*\nJAX: gain off by [1-9]\.\de-03",
    "three_libraries": r"sampled in NumPy: \de-0[67] from PyTorch",
}


def test_the_list_is_the_folder() -> None:
    files = {p.stem for p in Path(command.__file__).parent.glob("*.py")}
    assert files == {*command.NAMES, "command", "__init__"}
    assert set(command.NAMES) == set(FOUND)
    for name in command.NAMES:
        assert re.fullmatch(r"[A-Z].{30,}[.:].*", command.summary(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", command.NAMES)
def test_it_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.png"
    assert main(["example", name, "--out", str(out)]) == 0
    assert re.search(FOUND[name], capsys.readouterr().out)
    assert imread(out).std() > 0.05


@pytest.mark.slow
def test_a_folder_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("coffee", "chelsea", "astronaut", "rocket"):
        imsave(images / f"{name}.png", getattr(data, name)())
    assert main(["example", "folder", "--path", str(images), "--out", str(tmp_path / "a.png")]) == 0
    assert re.search(FOUND["folder"], capsys.readouterr().out)
