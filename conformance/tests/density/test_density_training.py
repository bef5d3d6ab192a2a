"""Runs: bit for bit after an interruption, as one in two processes, stopped when they go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from invconv_benchmarks.density.data.users_data import load  # noqa: E402
from invconv_benchmarks.density.recipes import checkpoint  # noqa: E402
from invconv_benchmarks.density.recipes.recipe import Recipe, load_preset  # noqa: E402
from invconv_benchmarks.density.training.health import DivergedError  # noqa: E402
from invconv_benchmarks.density.training.loop import Progress, train  # noqa: E402
from invconv_benchmarks.density.training.trainer import Trainer  # noqa: E402

ROOT = Path(__file__).parents[3]
DIGITS = load("digits")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Make sums the same, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe(mixing: str, **changes: Any) -> Recipe:
    return load_preset("digits").recipe(mixing, **changes)


def numbers(history: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what does not depend on the clock."""
    return [(e["step"], e["train"], e["held_out"], e["gradient_norm"]) for e in history]


@pytest.mark.parametrize("mixing", ["emerging", "periodic", "plu"])
def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(mixing: str, tmp_path: Path) -> None:
    whole = train(recipe(mixing, steps=11), DIGITS, tmp_path / "whole").checkpoint()
    asked = iter([False] * 4 + [True])
    part = train(
        recipe(mixing, steps=11), DIGITS, tmp_path / "part", should_stop=lambda: next(asked)
    )
    assert part.step == 4
    resumed = train(recipe(mixing, steps=11), DIGITS, tmp_path / "part").checkpoint()
    assert resumed.step == 11
    stored = checkpoint.read(tmp_path / "part" / checkpoint.NAME)
    for other in (resumed, stored):
        assert set(other.tensors) == set(whole.tensors)
        for name, tensor in whole.tensors.items():
            assert torch.equal(tensor, other.tensors[name]), name
        assert numbers(other.history) == numbers(whole.history)


def test_the_average_is_polyaks_with_less_weight_on_the_start() -> None:
    trainer = Trainer(recipe("plain", steps=30), DIGITS)
    name = "layers.level1_step0_coupling.net.2.weight"
    values = [trainer.model.get_parameter(name).detach().double()]
    for _ in range(30):
        trainer.advance()
        values.append(trainer.model.get_parameter(name).detach().double().clone())
    expected = values[0].clone()
    for n, value in enumerate(values[1:], start=1):
        keep = min(0.9, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * value
    found = trainer.average.get_parameter(name).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_actnorm_begins_from_the_first_images() -> None:
    trainer = Trainer(recipe("plain"), DIGITS)
    batches = trainer.batches
    assert bool(trainer.model.initialized)
    images, noise = batches.images(0), batches.noise(0)
    x = (torch.from_numpy(images) + torch.from_numpy(noise)) / 256
    with torch.no_grad():
        zs, _ = trainer.model.encode(x)
    assert all(0.5 < float(z.std()) < 2 for z in zs)


def test_bfloat16_runs_in_the_networks_alone() -> None:
    trainer = Trainer(recipe("emerging", precision="bfloat16"), DIGITS)
    seen: dict[str, Any] = {}

    def look(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).dtype

        return hook

    for name, module in trainer.model.named_modules():
        if name.endswith(("net.0", "_mixing", "_actnorm", "_coupling")):
            module.register_forward_hook(look(name))
    exact = Trainer(recipe("emerging"), DIGITS)
    reports = [t.advance() for t in (trainer, exact)]
    for name, dtype in seen.items():
        half = name.endswith("net.0")
        assert dtype == (torch.bfloat16 if half else torch.float32), name
    assert any(name.endswith("net.0") for name in seen)
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert reports[0].bits_per_dim == pytest.approx(reports[1].bits_per_dim, abs=0.05)


def damaged(step: int, change: Any) -> Any:
    """Return a report that changes the model after a step."""

    def report(progress: Progress) -> None:
        if progress.step == step:
            change()

    return report


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """Return a list of the trainers that the test makes, the first one first."""
    found: list[Trainer] = []
    made = Trainer.__init__

    def remember(self: Trainer, *arguments: Any) -> None:
        made(self, *arguments)
        found.append(self)

    monkeypatch.setattr(Trainer, "__init__", remember)
    return found


@pytest.mark.parametrize("layer", ["level0_step0_actnorm", "level1_step0_mixing"])
def test_a_nan_stops_the_run_with_the_layers_name(
    layer: str, tmp_path: Path, trainers: list[Trainer]
) -> None:
    run = recipe("periodic")

    def spoil() -> None:
        with torch.no_grad():
            next(trainers[0].model.layers[layer].parameters()).view(-1)[0] = float("nan")

    with pytest.raises(DivergedError, match=f"step 6: layer layers.{layer} has a non-finite out"):
        train(run, DIGITS, tmp_path, report=damaged(6, spoil))
    kept = checkpoint.read(tmp_path / checkpoint.NAME)
    assert kept.step == 6
    assert all(bool(torch.isfinite(t).all()) for t in kept.tensors.values())
    assert train(run, DIGITS, tmp_path).step == run.training.steps  # it can go on


def test_a_model_that_makes_no_numbers_is_not_saved(tmp_path: Path) -> None:
    run = recipe("plain", steps=20)
    train(run, DIGITS, tmp_path, should_stop=iter([False] * 4 + [True]).__next__)
    asked = iter([False, True])

    def spoil_and_stop() -> bool:
        if stop := next(asked):
            with torch.no_grad():
                resumed[0].model.layers["level0_step0_coupling"].net[-1].weight.fill_(3e38)
        return stop

    resumed: list[Trainer] = []
    original = Trainer.resume

    def remember(self: Trainer, stored: checkpoint.Checkpoint) -> None:
        resumed.append(self)
        original(self, stored)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "resume", remember)
        with pytest.raises(DivergedError, match=r"step 5: layer layers.level0_step0_coupling has"):
            train(run, DIGITS, tmp_path, should_stop=spoil_and_stop)
    kept = checkpoint.read(tmp_path / checkpoint.NAME)
    assert kept.step == 5  # saved after its measurement, before it was spoilt
    assert all(float(tensor.float().abs().max()) < 100 for tensor in kept.part("model").values())


def test_a_gradient_that_is_not_finite_is_of_a_layer_too() -> None:
    trainer = Trainer(recipe("plain"), DIGITS)
    layer = trainer.model.layers["level1_step0_mixing"]
    layer.register_full_backward_hook(lambda *_: (torch.full((16, 8, 2, 2), torch.inf),))
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    with pytest.raises(DivergedError, match=r"layers.level1_step0_actnorm has a non-finite grad"):
        trainer.advance()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_lost_inverse_stops_the_run_with_the_layers_name(
    tmp_path: Path, trainers: list[Trainer]
) -> None:
    def spoil() -> None:
        with torch.no_grad():
            weight = trainers[0].model.layers["level0_step0_mixing"].weight
            weight[1] = weight[0] + 1e-5 * weight[1]

    message = r"the inverse of layer layers.level0_step0_mixing is lost: off by .*4 x 4"
    run = recipe("plain", steps=100, learning_rate=1e-9)
    with pytest.raises(DivergedError, match=message):
        train(run, DIGITS, tmp_path, report=damaged(1, spoil))


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    options = ["density", "train", "--preset", "digits", "--mixing", "emerging", "--steps", "5"]
    folders = [ROOT / name for name in (".", "backends", "conformance", "benchmarks")]
    paths = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "invconv", *options, "--out", tmp_path / "two"],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("bits/dim of the validation tiles") == 1
    two = checkpoint.read(tmp_path / "two" / checkpoint.NAME)
    one = train(recipe("emerging", steps=5), DIGITS, tmp_path / "one").checkpoint()
    assert two.step == one.step == 5
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], tensor, rtol=1e-4, atol=1e-5)
    tests = [[entry["held_out"] for entry in c.history] for c in (one, two)]
    np.testing.assert_allclose(tests[0], tests[1], atol=1e-4)


def test_a_batch_that_two_processes_cannot_share() -> None:
    from invconv_benchmarks.density.training.processes import Processes

    parts = [Processes(rank, 4).part(12) for rank in range(4)]
    assert [list(range(12))[part] for part in parts] == [
        [0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]
    ]  # fmt: skip
    with pytest.raises(ValueError, match="a multiple of the 4 processes, got 10"):
        Processes(0, 4).part(10)
