"""The loop around a run's steps: measure, save, stop in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv.stability.guard import LayerCondition
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.evaluation import evaluation
from invconv_benchmarks.density.recipes import checkpoint
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.health import DivergedError, Watch
from invconv_benchmarks.density.training.processes import ALONE, Processes
from invconv_benchmarks.density.training.trainer import StepReport, Trainer

MEASUREMENTS = 20  # of the tiles held out, in a run


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes
    ----------
    step, steps : int
    last : StepReport or None
        None before the first step of this process.
    worst : LayerCondition or None
        The layer whose inverse has lost most, None before the first look.
    measured : dict or None
        What has just been measured, None most of the time.
    notes : list of str
        What the user should know.
    """

    step: int
    steps: int
    last: StepReport | None
    worst: LayerCondition | None
    measured: dict[str, Any] | None
    notes: list[str]


def train(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    device: str = "cpu",
    processes: Processes = ALONE,
    seconds: float = 300.0,
) -> Trainer:
    """Train until the recipe's last step, from where the folder's checkpoint is.

    Parameters
    ----------
    recipe : Recipe
    data : Dataset
    folder : Path
        Made if it is not there. A checkpoint of another run in it is an error.
    report : callable
        Is told after every step.
    should_stop : callable
        Asked after every step; if it says so, a checkpoint is written and the run ends there.
    device : str
    processes : Processes
    seconds : float
        After which another checkpoint is written; one is written after each measurement, too.

    Returns
    -------
    Trainer
        Its ``step`` tells whether it is done.

    Raises
    ------
    DivergedError
        That names the layer; the last checkpoint is from before.
    """
    path, trainer = folder / checkpoint.NAME, Trainer(recipe, data, device, processes)
    _resume(trainer, path, processes)
    watch, every = Watch(trainer.model), -(-trainer.steps // MEASUREMENTS)
    report(Progress(trainer.step, trainer.steps, None, None, None, []))
    saved, worst = time.monotonic(), None
    while trainer.step < trainer.steps and not (stopping := should_stop()):
        start = time.perf_counter()
        last, measured = trainer.advance(), None
        _add(trainer.pending, last, time.perf_counter() - start)
        if trainer.step % every == 0 or trainer.step == trainer.steps:
            worst = watch.look(trainer.step)
            measured = _measure(trainer, worst, processes)
        if measured or time.monotonic() - saved > seconds:
            _save(trainer, path, processes)
            saved = time.monotonic()
        notes, watch.warnings = watch.warnings, []
        report(Progress(trainer.step, trainer.steps, last, worst, measured, notes))
    if trainer.step < trainer.steps and stopping:
        _save(trainer, path, processes)
    return trainer


def _resume(trainer: Trainer, path: Path, processes: Processes) -> None:
    """Go on from a checkpoint, if there is one; make its folder, if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if processes.first:
        for left in path.parent.glob(".*.part"):  # of a run that was killed while it wrote
            left.unlink()
    if path.exists():
        try:
            trainer.resume(checkpoint.read(path))
        except ValueError as error:
            prefix = "" if str(path) in str(error) else f"{path}: "
            raise CommandError(f"{prefix}{error}; choose another folder, or delete it") from None


def _add(pending: dict[str, float], last: StepReport, seconds: float) -> None:
    """Take a step into the sums since the last measurement."""
    for name, value in (("count", 1), ("bits", last.bits_per_dim), ("seconds", seconds)):
        pending[name] = pending.get(name, 0.0) + value
    pending["norm"] = max(pending.get("norm", 0.0), last.gradient_norm)


def _measure(
    trainer: Trainer, worst: LayerCondition, processes: Processes
) -> dict[str, Any] | None:
    """Append to the history, and return what was appended; in the first process only."""
    sums, trainer.pending = trainer.pending, {}
    if not processes.first:
        return None
    watched = trainer.data.watched
    bits = float(evaluation.bits_per_dim(trainer.average, trainer.data, watched).mean())
    if not bits < float("inf"):
        raise DivergedError(
            f"step {trainer.step}: the {watched} images have {bits} bits/dim with the averaged "
            "parameters; the checkpoint before it is kept. Lower the learning rate"
        )
    found = {
        "step": trainer.step,
        "train": sums["bits"] / sums["count"],
        "held_out": bits,
        "gradient_norm": sums["norm"],
        "seconds_per_step": sums["seconds"] / sums["count"],
        "worst_layer": worst.name,
        "inverse_error": worst.error,
    }
    trainer.history.append(found)
    return found


def _save(trainer: Trainer, path: Path, processes: Processes) -> None:
    if processes.first:
        trainer.require_finite()
        checkpoint.write(path, trainer.checkpoint())
