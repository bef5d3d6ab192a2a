"""Runs: bit for bit after an interruption, as one in two processes, stopped when they go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")

from invconv_benchmarks.density.data.users_data import load  # noqa: E402
from invconv_benchmarks.density.recipes import checkpoint  # noqa: E402
from invconv_benchmarks.density.recipes.preset import load_preset  # noqa: E402
from invconv_benchmarks.density.recipes.recipe import Recipe  # noqa: E402
from invconv_benchmarks.density.training.health import DivergedError  # noqa: E402
from invconv_benchmarks.density.training.module import DensityModule  # noqa: E402
from invconv_benchmarks.density.training.run import Progress, train  # noqa: E402

ROOT = Path(__file__).parents[3]
DIGITS = load("digits")
CLOCK = ("seconds_per_step", "worst_layer", "inverse_error")  # by a clock, or on new samples


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Make sums the same, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe(mixing: str, **changes: Any) -> Recipe:
    return load_preset("digits").recipe(mixing, **changes)


def state(folder: Path) -> dict[str, Any]:
    """Return the tensors of a run's checkpoint."""
    content = torch.load(folder / checkpoint.NAME, weights_only=True)
    tensors: dict[str, Any] = content["state_dict"]
    return tensors


def after(steps: int) -> Callable[[], bool]:
    """Return an answer to `should_stop`: after so many steps."""
    return iter([False] * (steps - 1) + [True]).__next__


@pytest.mark.parametrize("mixing", ["emerging", "periodic"])
def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(mixing: str, tmp_path: Path) -> None:
    run = recipe(mixing, steps=11)
    train(run, DIGITS, tmp_path / "whole")
    assert train(run, DIGITS, tmp_path / "part", should_stop=after(4)).step == 4
    assert train(run, DIGITS, tmp_path / "part").step == 11
    whole, part = state(tmp_path / "whole"), state(tmp_path / "part")
    assert all(torch.equal(tensor, part[name]) for name, tensor in whole.items())
    histories = [
        [{k: v for k, v in entry.items() if k not in CLOCK} for entry in stored.history]
        for stored in (checkpoint.read(tmp_path / n / checkpoint.NAME) for n in ("whole", "part"))
    ]
    assert histories[0] == histories[1]
    before = (tmp_path / "part" / checkpoint.NAME).read_bytes()
    again = train(run, DIGITS, tmp_path / "part")  # it is done: nothing is trained or written
    assert again.step == 11
    assert (tmp_path / "part" / checkpoint.NAME).read_bytes() == before
    pairs = zip(again.average.parameters(), part.items(), strict=False)
    assert next(pairs)[0].requires_grad is False


def test_the_average_is_polyaks_with_less_weight_on_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules = remembered(monkeypatch)
    name, values = "layers.level1_step0_coupling.net.2.weight", list[Any]()

    def report(progress: Progress) -> None:
        values.append(modules[0].flow.get_parameter(name).detach().double().clone())

    run = train(recipe("plain", steps=12), DIGITS, tmp_path, report=report)
    expected = values[0].clone()
    for n, value in enumerate(values[1:], start=1):
        keep = min(0.9, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * value
    found = run.average.get_parameter(name).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_actnorm_begins_from_the_first_images() -> None:
    module = DensityModule(recipe("plain"), DIGITS)
    assert bool(module.flow.initialized)
    x = torch.from_numpy(DIGITS.test[:64] / np.float32(256))
    with torch.no_grad():
        zs, _ = module.flow.encode(x)
    assert all(0.5 < float(z.std()) < 2 for z in zs)


def test_bfloat16_runs_in_the_networks_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules, seen = remembered(monkeypatch), dict[str, Any]()

    def hook(name: str) -> Any:
        def look(module: Any, inputs: Any, output: Any) -> None:
            seen.setdefault(name, (output[0] if isinstance(output, tuple) else output).dtype)

        return look

    def report(progress: Progress) -> None:
        for name, part in modules[0].flow.named_modules() if progress.step == 0 else ():
            if name.endswith(("net.0", "_mixing", "_actnorm", "_coupling")):
                part.register_forward_hook(hook(name))

    half = train(
        recipe("emerging", steps=2, precision="bfloat16"), DIGITS, tmp_path / "a", report=report
    )
    exact = train(recipe("emerging", steps=2), DIGITS, tmp_path / "b")
    assert any(name.endswith("net.0") for name in seen)
    for name, dtype in seen.items():
        expected = torch.bfloat16 if name.endswith("net.0") else torch.float32
        assert dtype == expected, name
    assert all(p.dtype == torch.float32 for p in half.flow.parameters())
    assert float(half.loss) == pytest.approx(float(exact.loss), abs=0.05)


def remembered(monkeypatch: pytest.MonkeyPatch) -> list[DensityModule]:
    """Return a list of the modules that the test makes, the first one first."""
    found: list[DensityModule] = []
    made = DensityModule.__init__

    def remember(self: DensityModule, *arguments: Any) -> None:
        made(self, *arguments)
        found.append(self)

    monkeypatch.setattr(DensityModule, "__init__", remember)
    return found


@torch.no_grad()  # type: ignore[untyped-decorator]
def spoil_weight(flow: Any) -> None:
    next(flow.layers["level1_step0_mixing"].parameters()).view(-1)[0] = float("nan")


@torch.no_grad()  # type: ignore[untyped-decorator]
def spoil_inverse(flow: Any) -> None:
    weight = flow.layers["level0_step0_mixing"].weight
    weight[1] = weight[0] + 1e-5 * weight[1]


def spoil_gradient(flow: Any) -> None:
    layer = flow.layers["level1_step0_mixing"]
    layer.register_full_backward_hook(lambda *_: (torch.full((16, 8, 2, 2), torch.inf),))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_weight, r"step 6: layer layers.level1_step0_mixing has a non-finite out"),
        (spoil_gradient, r"step 6: layer layers.level1_step0_actnorm has a non-finite grad"),
        (spoil_inverse, r"inverse of layer layers.level0_step0_mixing is lost: off by .*4 x 4"),
    ],
)
def test_a_run_that_goes_wrong_stops_with_the_layers_name_and_can_go_on(
    spoil: Any, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules, run = remembered(monkeypatch), recipe("plain", steps=20, learning_rate=1e-9)

    def report(progress: Progress) -> None:
        if progress.step == 6:
            spoil(modules[0].flow)

    with pytest.raises(DivergedError, match=message):
        train(run, DIGITS, tmp_path, report=report)
    kept = checkpoint.read(tmp_path / checkpoint.NAME)
    assert kept.step == 6
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state(tmp_path).values())
    assert train(run, DIGITS, tmp_path).step == 20


def test_a_model_that_makes_no_numbers_is_not_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules, run = remembered(monkeypatch), recipe("plain", steps=40)
    asked = iter([False, False, True])

    def spoil_and_stop() -> bool:
        if stop := next(asked):
            with torch.no_grad():
                modules[0].flow.layers["level0_step0_coupling"].net[-1].weight.fill_(3e38)
        return stop

    with pytest.raises(DivergedError, match=r"step 3: layer layers.level0_step0_coupling has"):
        train(run, DIGITS, tmp_path, should_stop=spoil_and_stop)
    assert checkpoint.read(tmp_path / checkpoint.NAME).step == 2


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
    train(recipe("emerging", steps=5), DIGITS, tmp_path / "one")
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)
    stored = [checkpoint.read(tmp_path / n / checkpoint.NAME) for n in ("one", "two")]
    tests = [[entry["held_out"] for entry in c.history] for c in stored]
    np.testing.assert_allclose(tests[0], tests[1], atol=1e-4)


def test_a_batch_that_the_processes_cannot_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="a multiple of the 3 processes, got 16"):
        train(recipe("plain"), DIGITS, tmp_path)
