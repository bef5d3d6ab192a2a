"""Checkpoints: killed in mid-write, cut off, damaged, on a full disk, of another run."""

from __future__ import annotations

import json
import math
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

import safetensors  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from invconv._cli import main  # noqa: E402
from invconv_benchmarks.density.data.users_data import load  # noqa: E402
from invconv_benchmarks.density.evaluation import evaluation  # noqa: E402
from invconv_benchmarks.density.recipes import checkpoint  # noqa: E402
from invconv_benchmarks.density.recipes.recipe import load_preset  # noqa: E402
from invconv_benchmarks.density.training.loop import train  # noqa: E402

DIGITS = load("digits")
RECIPE = load_preset("digits").recipe("plain", steps=60)
MEASURED = ("seconds_per_step", "worst_layer", "inverse_error")  # by a clock, or on new samples

TRAINS_AND_WRITES = """
import sys
from pathlib import Path
import torch
from invconv_benchmarks.density.recipes.recipe import load_preset
from invconv_benchmarks.density.training.loop import train
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
    folder, chance, steps = tmp_path / "run", random.Random(0), list[int]()
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", TRAINS_AND_WRITES, folder])
        deadline = time.monotonic() + 100
        written = checkpoint.read(folder / checkpoint.NAME).step if steps else 0
        while time.monotonic() < deadline and child.poll() is None:
            new = [name for name in names(folder) if name.endswith(".part")]
            if new and (folder / checkpoint.NAME).exists() and chance.random() < 0.3:
                break
            time.sleep(1e-4)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        stored = checkpoint.read(folder / checkpoint.NAME)  # whole, whenever it was
        assert written <= stored.step < 60
        steps.append(stored.step)
    resumed = train(RECIPE, DIGITS, folder).checkpoint()
    assert names(folder) == [checkpoint.NAME]  # nothing is left of what was half written
    whole = train(RECIPE, DIGITS, tmp_path / "whole").checkpoint()
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    timeless = [
        [{k: v for k, v in entry.items() if k not in MEASURED} for entry in run.history]
        for run in (whole, resumed)
    ]
    assert timeless[0] == timeless[1]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a good checkpoint, after 5 steps."""
    folder = tmp_path_factory.mktemp("run")
    asked = iter([False] * 5 + [True])
    train(RECIPE, DIGITS, folder, should_stop=lambda: next(asked))
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
    assert str(path) in error
    assert "no whole checkpoint" in error
    assert "delete it to begin anew, or restore it" in error
    assert path.read_bytes() == before
    assert names(tmp_path) == [checkpoint.NAME]


def test_a_flipped_bit_anywhere_is_found(done: bytes, tmp_path: Path) -> None:
    path, chance = tmp_path / checkpoint.NAME, random.Random(0)
    for _ in range(40):
        content = bytearray(done)
        content[chance.randrange(len(done))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors: no "):
            checkpoint.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 7}, "changed or damaged"),
        ({"history": []}, "changed or damaged"),
        ({"step": -5}, "expected a step from 0 to 60, got -5"),
        ({"step": math.inf}, "cannot convert float infinity"),
        ({"history": ["a"]}, "expected objects as history"),
        ({"image_shape": [1, 2**20, 2**20]}, "for images of 1 x 1048576 x 1048576"),
        ({"width": 300_000}, "describes a model of at least 90000000000"),
    ],
)
def test_a_description_that_was_changed_takes_no_memory(
    change: dict[str, Any], message: str, done: bytes, tmp_path: Path
) -> None:
    """Those that the message does not call changed have a right digest."""
    path = tmp_path / checkpoint.NAME
    path.write_bytes(done)
    with safetensors.safe_open(path, framework="pt") as file:
        text = file.metadata()["invconv-density"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    description = json.loads(text)
    digest = description.pop("digest")
    wide = description["recipe"]["architecture"] if "width" in change else description
    wide.update(change)
    if "changed" not in message:
        digest = checkpoint._digest(description, tensors)
    text = json.dumps(description | {"digest": digest})
    save_file(tensors, path, {"invconv-density": text})
    with pytest.raises(ValueError, match=message):
        evaluation.restore(path)


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


def test_nan_in_a_checkpoint_is_refused(done: bytes, tmp_path: Path) -> None:
    path = tmp_path / checkpoint.NAME
    path.write_bytes(done)
    stored = checkpoint.read(path)
    name = "average.layers.level0_step0_mixing.weight"
    stored.tensors[name][0, 0] = float("nan")
    checkpoint.write(path, stored)
    with pytest.raises(ValueError, match=r"average: layers.level0_step0_mixing.weight holds NaN"):
        train(RECIPE, DIGITS, tmp_path)


# room for one checkpoint, and not for two
@pytest.mark.parametrize("small_disk", ["60k"], indirect=True)
def test_on_a_full_disk_the_last_checkpoint_stays_and_the_run_goes_on_elsewhere(
    small_disk: Path, done: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 32_000 < len(done) < 60_000
    path = small_disk / checkpoint.NAME
    path.write_bytes(done)
    command = ["density", "train", "--preset", "digits", "--mixing", "plain", "--steps", "60"]
    assert main([*command, "--out", str(small_disk)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: the checkpoint of step 6 cannot be written" in error
    assert "No space left" in error
    assert path.read_bytes() == done
    assert names(small_disk) == [checkpoint.NAME]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / checkpoint.NAME).write_bytes(done)
    assert main([*command, "--out", str(elsewhere)]) == 0
    assert checkpoint.read(elsewhere / checkpoint.NAME).step == 60
