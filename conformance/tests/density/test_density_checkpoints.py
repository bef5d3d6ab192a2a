"""Checkpoints: cut off, damaged, on a full disk, of another run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="lightning is not installed")

from invconv._cli import main
from invconv_benchmarks.density.data.users_data import load
from invconv_benchmarks.density.recipes import checkpoint
from invconv_benchmarks.density.recipes.recipe import load_preset
from invconv_benchmarks.density.training.run import train

DIGITS = load("digits")
RECIPE = load_preset("digits").recipe("plain", steps=60)
TRAIN = ["density", "train", "--preset", "digits", "--mixing", "plain", "--steps", "60", "--out"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a good checkpoint, after 5 steps."""
    folder = tmp_path_factory.mktemp("run")
    train(RECIPE, DIGITS, folder, should_stop=iter([False] * 4 + [True]).__next__)
    return (folder / checkpoint.NAME).read_bytes()


class _Code:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


def saved(content: Any) -> bytes:
    """Return a file of PyTorch."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def with_a_flipped_bit(content: bytes) -> bytes:
    state = torch.load(io.BytesIO(content), weights_only=True)["state_dict"]
    weight = state["average.layers.level0_step0_mixing.weight"]
    place = content.index(weight.numpy().tobytes())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-50],
    "a flipped bit": with_a_flipped_bit,
    "code": lambda content: saved({checkpoint.KEY: _Code()}),
    "no run": lambda content: saved({"state_dict": {}}),
    "a list": lambda content: saved([]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_left_alone(
    damage: Callable[[bytes], bytes],
    done: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, content = tmp_path / checkpoint.NAME, damage(done)
    path.write_bytes(content)
    for command in ([*TRAIN, str(tmp_path)], ["density", "evaluate", str(tmp_path)]):
        assert main(command) == 2
        out, error = capsys.readouterr()
        assert re.search(rf"{checkpoint.NAME}: no (whole )?checkpoint", error)
        assert "this ran" not in out
    assert path.read_bytes() == content
    assert names(tmp_path) == [checkpoint.NAME]


def test_a_checkpoint_of_another_run_or_of_other_images_is_refused(
    done: bytes, tmp_path: Path
) -> None:
    path = tmp_path / checkpoint.NAME
    path.write_bytes(done)
    other = load_preset("digits").recipe("plain", seed=1, steps=60, learning_rate=0.5)
    message = r"seed was 0 and is 1, learning_rate was 0.01 and is 0.5; choose another folder"
    with pytest.raises(ValueError, match=message):
        train(other, DIGITS, tmp_path)
    changed = np.asarray(DIGITS.train).copy()
    changed[0] ^= 1
    images = type(DIGITS)("digits", changed, DIGITS.test)
    with pytest.raises(ValueError, match="the checkpoint is of a run on other images"):
        train(RECIPE, images, tmp_path)
    assert path.read_bytes() == done


# room for one checkpoint, and not for two
@pytest.mark.parametrize("small_disk", ["110k"], indirect=True)
def test_on_a_full_disk_the_last_checkpoint_stays(
    small_disk: Path, done: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 56_000 < len(done) < 110_000
    path = small_disk / checkpoint.NAME
    path.write_bytes(done)
    assert main([*TRAIN, str(small_disk)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: the checkpoint of step 6 cannot be written" in error
    assert path.read_bytes() == done
    assert names(small_disk) == [checkpoint.NAME]
