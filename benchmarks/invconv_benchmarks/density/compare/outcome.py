"""One run of a comparison: it is trained and evaluated, and its outcome is kept in a file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from invconv.files.whole_files import write_text
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.evaluation import evaluation
from invconv_benchmarks.density.evaluation.evaluation import Trip
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.health import DivergedError
from invconv_benchmarks.density.training.loop import Progress, train
from invconv_benchmarks.density.training.trainer import Trainer
from invconv_benchmarks.results.records import structured

NAME = "outcome.json"
SCHEMA = "invconv-density-outcome/2"  # a run with another one is evaluated again, not trained
IMAGES, SAMPLES = 16, 100  # the number that goes through a model and back
FEWER = {"maf": (4, 10)}  # a sample of MAF takes one pass for each number


@dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    Attributes
    ----------
    error : str or None
        What stopped it; the rest is then None.
    parameters : int or None
    bits : list of float or None
        Bits/dim of each test tile.
    history : list of dict
        What was measured on the way.
    seconds_per_step : float or None
    images, samples : Trip or None
        Not of a run that is there for its learning rate.
    """

    error: str | None = None
    parameters: int | None = None
    bits: list[float] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds_per_step: float | None = None
    images: Trip | None = None
    samples: Trip | None = None

    @property
    def mean(self) -> float | None:
        """The mean of the bits/dim."""
        return statistics.fmean(self.bits) if self.bits else None


@dataclass(frozen=True)
class Job:
    """A run of a comparison.

    Attributes
    ----------
    name : str
        Of its folder.
    recipe : Recipe
    sweep : bool
        Whether it is there for its learning rate alone, and is not sampled from.
    """

    name: str
    recipe: Recipe
    sweep: bool = False


def perform(
    job: Job,
    data: Dataset,
    folder: Path,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Outcome | None:
    """Train and evaluate, from where it was left; return what was found, None if told to stop.

    A run that diverged is finished, too: it would diverge again.
    """
    identity = {"schema": SCHEMA, "recipe": job.recipe.to_dict(), "data": data.fingerprint}
    known = _read(folder / NAME, identity)
    if known is not None:
        return known
    try:
        trainer = train(
            job.recipe, data, folder, report=report, should_stop=should_stop, seconds=30
        )
    except DivergedError as error:
        found = Outcome(error=str(error))
    else:
        if trainer.step < trainer.steps:
            return None
        found = _evaluated(trainer, data, sweep=job.sweep)
    write_text(folder / NAME, json.dumps(identity | asdict(found), allow_nan=False) + "\n")
    return found


def _evaluated(trainer: Trainer, data: Dataset, *, sweep: bool) -> Outcome:
    trips: dict[str, Trip] = {}
    if not sweep:
        counts = FEWER.get(trainer.recipe.architecture.mixing, (IMAGES, SAMPLES))
        trips = evaluation.round_trips(trainer.average, data, *counts)
    return Outcome(
        parameters=sum(p.numel() for p in trainer.model.parameters()),
        bits=[float(b) for b in evaluation.bits_per_dim(trainer.average, data)],
        history=trainer.history,
        seconds_per_step=statistics.median(e["seconds_per_step"] for e in trainer.history),
        images=trips.get("images"),
        samples=trips.get("samples"),
    )


def _read(path: Path, identity: dict[str, Any]) -> Outcome | None:
    """Return a finished run's outcome; None if there is none, or not a whole one of this run."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(found, dict) or any(found.get(k) != v for k, v in identity.items()):
        return None
    kept = {k: v for k, v in found.items() if k not in identity}
    outcome: Outcome = structured(Outcome, kept)
    return outcome
