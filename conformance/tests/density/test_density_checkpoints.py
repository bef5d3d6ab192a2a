"""Checkpoints: killed in mid-write, cut off, damaged, on a full disk, of another run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")

from invconv._cli import main  # noqa: E402
from invconv_benchmarks.density.data.users_data import load  # noqa: E402
from invconv_benchmarks.density.recipes import checkpoint  # noqa: E402
from invconv_benchmarks.density.recipes.preset import load_preset  # noqa: E402
from invconv_benchmarks.density.training.run import train  # noqa: E402

DIGITS = load("digits")
RECIPE = load_preset("digits").recipe("plain", steps=60)

TRAINS_AND_WRITES = """
import sys
from pathlib import Path
import torch
from invconv_benchmarks.density.recipes.preset import load_preset
from invconv_benchmarks.density.training.run import train
from invconv_benchmarks.density.data.users_data import load
torch.set_num_threads(1)
recipe = load_preset("digits").recipe("plain", steps=60)
train(recipe, load("digits"), Path(sys.argv[1]), seconds=0)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Make sums the same, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.slow
def test_killed_in_mid_write_and_resumed_nothing_is_lost(tmp_path: Path) -> None:
    """A checkpoint a step, and a kill while one is being written; then again, and to the end."""
    folder, chance, written = tmp_path / "run", random.Random(0), 0
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", TRAINS_AND_WRITES, folder])
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and child.poll() is None:
            new = [name for name in names(folder) if name.endswith(".part")]
            if new and (folder / checkpoint.NAME).exists() and chance.random() < 0.3:
                break
            time.sleep(1e-4)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        step = checkpoint.read(folder / checkpoint.NAME).step  # whole, whenever it was
        assert written <= step < 60
        written = step
    train(RECIPE, DIGITS, folder)
    assert names(folder) == [checkpoint.NAME]  # nothing is left of the one that was half written
    train(RECIPE, DIGITS, tmp_path / "whole")
    whole, resumed = (
        torch.load(path / checkpoint.NAME, weights_only=True)["state_dict"]
        for path in (tmp_path / "whole", folder)
    )
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a good checkpoint, after 5 steps."""
    folder = tmp_path_factory.mktemp("run")
    train(RECIPE, DIGITS, folder, should_stop=iter([False] * 4 + [True]).__next__)
    return (folder / checkpoint.NAME).read_bytes()


@pytest.mark.parametrize("verb", ["train", "evaluate", "sample"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused_and_left_alone(
    verb: str, share: float, done: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / checkpoint.NAME
    path.write_bytes(done[: int(share * len(done))])
    before = path.read_bytes()
    command = ["train", "--preset", "digits", "--mixing", "plain", "--out", str(tmp_path)]
    command = command if verb == "train" else [verb, str(tmp_path)]
    assert main(["density", *command]) == 2
    error = capsys.readouterr().err
    assert f"{path}: no whole checkpoint" in error
    assert "delete it to begin anew, or restore it" in error
    assert path.read_bytes() == before
    assert names(tmp_path) == [checkpoint.NAME]


def test_a_flipped_bit_of_a_number_is_found(done: bytes, tmp_path: Path) -> None:
    path, content = tmp_path / checkpoint.NAME, torch.load
    path.write_bytes(done)
    state = content(path, weights_only=True)["state_dict"]
    for name in ("flow", "average"):
        weight = state[f"{name}.layers.level0_step0_mixing.weight"]
        place = done.index(weight.numpy().tobytes())
        path.write_bytes(done[:place] + bytes([done[place] ^ 1]) + done[place + 1 :])
        with pytest.raises(ValueError, match=r"checkpoint\.ckpt: no whole checkpoint"):
            checkpoint.read(path)


class _Code:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [], {checkpoint.KEY: _Code()}])
def test_another_file_of_pytorch_is_refused_and_no_code_of_it_runs(
    content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / checkpoint.NAME
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"checkpoint\.ckpt: no "):
        checkpoint.read(path)
    assert "this ran" not in capsys.readouterr().out


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
    images: Any = type(DIGITS)("digits", changed, DIGITS.test)
    with pytest.raises(ValueError, match="the checkpoint is of a run on other images"):
        train(RECIPE, images, tmp_path)
    assert path.read_bytes() == done


# room for one checkpoint, and not for two
@pytest.mark.parametrize("small_disk", ["110k"], indirect=True)
def test_on_a_full_disk_the_last_checkpoint_stays_and_the_run_goes_on_elsewhere(
    small_disk: Path, done: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 56_000 < len(done) < 110_000
    path = small_disk / checkpoint.NAME
    path.write_bytes(done)
    command = ["density", "train", "--preset", "digits", "--mixing", "plain", "--steps", "60"]
    assert main([*command, "--out", str(small_disk)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: the checkpoint of step 6 cannot be written" in error
    assert path.read_bytes() == done
    assert names(small_disk) == [checkpoint.NAME]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / checkpoint.NAME).write_bytes(done)
    assert main([*command, "--out", str(elsewhere)]) == 0
    assert checkpoint.read(elsewhere / checkpoint.NAME).step == 60
