"""One run of a comparison: it is trained and evaluated, and its outcome is kept in a file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from invconv.files.whole_files import write_text
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.evaluation import evaluation
from invconv_benchmarks.density.evaluation.round_trip import Trip
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.health import DivergedError
from invconv_benchmarks.density.training.module import DensityModule
from invconv_benchmarks.density.training.run import Progress, train
from invconv_benchmarks.results.records import structured

NAME = "outcome.json"
SCHEMA = "invconv-density-outcome/3"  # a run with another one is evaluated again, not trained
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
    validation : float or None
        Bits/dim of the validation part, if there is one.
    bits : list of float or None
        Bits/dim of each test tile, of a run that is reported.
    history : list of dict
        What was measured on the way.
    seconds_per_step : float or None
    images, samples : Trip or None
        Of one run of a row that is reported.
    """

    error: str | None = None
    parameters: int | None = None
    validation: float | None = None
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
    final : bool
        Whether it is reported, on the test part; else it is there for its learning rate.
    trips : bool
        Whether images and samples go through the model and back.
    """

    name: str
    recipe: Recipe
    final: bool = False
    trips: bool = False

    def ended(self, outcomes: Mapping[str, Outcome]) -> bool:
        """Whether its outcome is there, by its name, with all that is asked for."""
        found = outcomes.get(self.name)
        return found is not None and self.answered(found)

    def answered(self, found: Outcome) -> bool:
        """Whether an outcome of its run has all that is asked for."""
        if found.error:
            return True
        return (found.bits is not None or not self.final) and (
            found.images is not None or not self.trips
        )


def perform(
    job: Job,
    data: Dataset,
    folder: Path,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Outcome | None:
    """Train and evaluate, from where it was left; return what was found, None if told to stop.

    A run whose outcome lacks what is now asked for is evaluated again, not trained. A run that
    diverged is finished, too: it would diverge again.
    """
    identity = {"schema": SCHEMA, "recipe": job.recipe.to_dict(), "data": data.fingerprint}
    known = _read(folder / NAME, identity)
    if known is not None and job.answered(known):
        return known
    try:
        run = train(job.recipe, data, folder, report=report, should_stop=should_stop, seconds=30)
    except DivergedError as error:
        found = Outcome(error=str(error))
    else:
        if run.step < run.steps:
            return None
        found = _evaluated(run, data, job)
    write_text(folder / NAME, json.dumps(identity | asdict(found), allow_nan=False) + "\n")
    return found


def _evaluated(run: DensityModule, data: Dataset, job: Job) -> Outcome:
    trips: dict[str, Trip] = {}
    if job.trips:
        counts = FEWER.get(run.recipe.architecture.mixing, (IMAGES, SAMPLES))
        trips = evaluation.round_trips(run.average, data, *counts)
    return Outcome(
        parameters=sum(p.numel() for p in run.flow.parameters()),
        validation=None if data.watched == "test" else run.history[-1]["held_out"],
        bits=evaluation.bits_per_dim(run.average, data).tolist() if job.final else None,
        history=run.history,
        seconds_per_step=statistics.median(e["seconds_per_step"] for e in run.history),
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
