"""Runs: as one after an interruption or in two processes, stopped when wrong; their checkpoints."""

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
from invconv_benchmarks.density.data import load
from invconv_benchmarks.density.evaluation import bits_per_dim
from invconv_benchmarks.density.recipe import CHECKPOINT, KEY, Recipe, load_preset
from invconv_benchmarks.density.training import DensityModule, DivergedError, train
from invconv_benchmarks.density.training import first_non_finite as non_finite
from tests.programs import python

pytestmark = pytest.mark.slow  # density models are checked nightly
DIGITS = load("digits")


def recipe(mixing: str, **changes: Any) -> Recipe:
    return load_preset("digits").recipe(mixing, **changes)


def content(folder: Path) -> Any:
    return torch.load(folder / CHECKPOINT, weights_only=True)


def after(steps: int) -> Callable[[], bool]:
    """Return an answer to `should_stop`: after so many steps."""
    return iter([False] * (steps - 1) + [True]).__next__


def same(one: Path, other: Path) -> bool:
    first, second = content(one), content(other)
    tensors, others = first["state_dict"], second["state_dict"]
    histories = [c[KEY]["history"] for c in (first, second)]
    measured = [[(e["step"], e["train"], e["held_out"]) for e in entries] for entries in histories]
    equal = all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    return equal and measured[0] == measured[1]


@pytest.mark.parametrize("mixing", ["emerging", "periodic"])
def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(mixing: str, tmp_path: Path) -> None:
    run, whole, part = recipe(mixing, steps=11), tmp_path / "whole", tmp_path / "part"
    train(run, DIGITS, whole)
    assert train(run, DIGITS, part, should_stop=after(4)).step == 4
    (part / f".{'0a' * 8}.part").touch()  # as a process leaves that is killed while it writes
    (part / ".users.part").touch()
    assert train(run, DIGITS, part).step == 11
    assert {path.name for path in part.iterdir()} == {CHECKPOINT, ".users.part"}
    assert same(whole, part)
    before = (part / CHECKPOINT).read_bytes()
    again = train(run, DIGITS, part)  # it is done: nothing is trained or written
    assert (again.step, (part / CHECKPOINT).read_bytes()) == (11, before)
    stored = content(part)["state_dict"]
    for name, weight in again.average.state_dict().items():
        assert torch.equal(stored[f"average.{name}"], weight)
    last = again.history[-1]["held_out"]  # of the average, not of what is trained
    bits = [
        float(bits_per_dim(m, DIGITS, DIGITS.watched).mean()) for m in (again.average, again.flow)
    ]
    assert last == pytest.approx(bits[0], rel=1e-6) != pytest.approx(bits[1], rel=1e-6)


def test_the_average_is_polyaks_with_a_light_start(monkeypatch: Any, tmp_path: Path) -> None:
    modules = remembered(monkeypatch)
    name, values = "layers.level1_step0_coupling.net.2.weight", list[Any]()

    def note_and_go_on() -> bool:
        values.append(modules[0].flow.get_parameter(name).detach().double().clone())
        return False

    run = train(recipe("plain", steps=12), DIGITS, tmp_path, should_stop=note_and_go_on)
    start = DensityModule(run.recipe, DIGITS, tmp_path, bool, 0.0, str).flow
    expected = start.get_parameter(name).double()
    for n, value in enumerate(values, start=1):
        keep = min(0.9, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * value
    found = run.average.get_parameter(name).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def remembered(monkeypatch: pytest.MonkeyPatch) -> list[DensityModule]:
    """Return a list of the modules that the test makes, the first one first."""
    modules: list[DensityModule] = []
    initialise = DensityModule.__init__

    def remember(self: DensityModule, *arguments: Any) -> None:
        initialise(self, *arguments)
        modules.append(self)

    monkeypatch.setattr(DensityModule, "__init__", remember)
    return modules


INFINITE = (torch.full((16, 8, 2, 2), torch.inf),)
# by layers and messages, what spoils a layer
SPOILT: dict[tuple[str, str], Callable[[Any], object]] = {
    ("level1_step0_mixing", "step 7: the output of layer layers.level1_step0_mixing is not"): (
        lambda layer: layer.weight.view(-1)[0].fill_(torch.nan)
    ),
    ("level0_step0_coupling", "step 7: the output of layer layers.level0_step0_coupling is not"): (
        lambda layer: layer.net[-1].weight.fill_(3e38)
    ),
    ("level1_step0_mixing", "step 7: a gradient of layer layers.level1_step0_actnorm is not"): (
        lambda layer: layer.register_full_backward_hook(lambda *_: INFINITE)
    ),
    (
        "level0_step0_mixing",
        "step 8: the inverse of layers.level0_step0_mixing .*4 x 4 is off by",
    ): (lambda layer: layer.weight[1].mul_(1e-5).add_(layer.weight[0])),
}


@pytest.mark.parametrize(("name", "message"), SPOILT)
def test_a_run_that_goes_wrong_stops_with_the_layers_name_and_can_go_on(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules, run = remembered(monkeypatch), recipe("plain", steps=40, learning_rate=1e-9)

    def spoil_after_seven() -> bool:
        if modules[0].step == 7:
            assert non_finite(modules[0].flow, torch.full((2, 1, 8, 8), 0.5)) is None
            with torch.no_grad():
                SPOILT[name, message](modules[0].flow.layers[name])
        return modules[0].step == 7 and "coupling" in name  # it would be saved now

    with pytest.raises(DivergedError, match=message):
        train(run, DIGITS, tmp_path, should_stop=spoil_after_seven)
    kept = content(tmp_path)
    assert kept[KEY]["step"] == 6
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept["state_dict"].values())
    assert train(run, DIGITS, tmp_path).step == 40


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    options = ["density", "train", "--preset", "digits", "--mixing", "emerging", "--steps", "5"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = python(*launch, "-m", "invconv", *options, "--out", tmp_path / "two", timeout=300)
    assert done.stdout.count("bits/dim of the validation tiles") == 1
    train(recipe("emerging", steps=5), DIGITS, tmp_path / "one")
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    torch.testing.assert_close(two["state_dict"], one["state_dict"], rtol=1e-4, atol=1e-5)
    bits = [[entry["held_out"] for entry in c[KEY]["history"]] for c in (one, two)]
    assert bits[0] == pytest.approx(bits[1], abs=1e-4)


def test_a_batch_that_the_processes_cannot_share(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="a multiple of the 3 processes, got 16"):
        train(recipe("plain"), DIGITS, tmp_path)


RECIPE = recipe("plain", steps=60)
TRAIN = ["density", "train", "--preset", "digits", "--mixing", "plain", "--steps", "60", "--out"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("run")
    train(RECIPE, DIGITS, folder, should_stop=after(5))
    return (folder / CHECKPOINT).read_bytes()


class _Code:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def with_a_flipped_bit(content: bytes) -> bytes:
    state = torch.load(io.BytesIO(content), weights_only=True)["state_dict"]
    weight = state["average.layers.level0_step0_mixing.weight"]
    place = content.index(weight.numpy().tobytes())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def without_a_mixing(content: bytes) -> bytes:
    stored = torch.load(io.BytesIO(content), weights_only=True)
    stored[KEY]["recipe"]["mixing"] = None
    return saved(stored)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-50],
    "a flipped bit": with_a_flipped_bit,
    "code": lambda content: saved({KEY: _Code()}),
    "no run": lambda content: saved({"state_dict": {}}),
    "a list": lambda content: saved([]),
    "a tensor": lambda content: saved(torch.zeros(3)),
    "no mixing": without_a_mixing,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint(damage: Any, done: bytes, tmp_path: Path, capsys: Any) -> None:
    path, content = tmp_path / CHECKPOINT, damage(done)
    path.write_bytes(content)
    for command in ([*TRAIN, str(tmp_path)], ["density", "evaluate", str(tmp_path)]):
        assert main(command) == 2
        out, error = capsys.readouterr()
        assert re.search(rf"{CHECKPOINT}: no (whole )?checkpoint", error)
        assert "this ran" not in out
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_imports_no_module(
    done: bytes, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "evil_rows.py").write_text("print('this ran')")
    monkeypatch.syspath_prepend(tmp_path)
    stored = torch.load(io.BytesIO(done), weights_only=True)
    sample = ["density", "sample", str(tmp_path), "--count", "1", "--out", str(tmp_path / "a.png")]
    stored[KEY]["recipe"]["mixing"] = "evil_rows:plain"
    (tmp_path / CHECKPOINT).write_bytes(saved(stored))
    for mixing, status in (("", 0), ("os:plain", 2), ("evil_rows:plain", 0)):
        assert main([*sample, *(["--mixing", mixing] if mixing else [])]) == status
        out, error = capsys.readouterr()
        assert ("this ran" in out) == (mixing == "evil_rows:plain")
        assert ("--mixing: expected 'evil_rows:plain', as the run has" in error) == (status == 2)
    stored[KEY]["recipe"]["mixing"] = "evil_rows:none"
    (tmp_path / CHECKPOINT).write_bytes(saved(stored))
    assert main(sample) == 2
    assert "has its word once its module has been imported" in capsys.readouterr().err


def test_a_checkpoint_of_another_run_is_refused(done: bytes, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(done)
    other = recipe("plain", seed=1, steps=60, learning_rate=0.5)
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
def test_on_a_full_disk_the_checkpoint_stays(small_disk: Path, done: bytes, capsys: Any) -> None:
    assert 56_000 < len(done) < 110_000
    path = small_disk / CHECKPOINT
    path.write_bytes(done)
    assert main([*TRAIN, str(small_disk)]) == 2
    error = capsys.readouterr().err
    assert f"{path}: the checkpoint of step 6 cannot be written" in error
    assert path.read_bytes() == done
    assert list(small_disk.iterdir()) == [path]
