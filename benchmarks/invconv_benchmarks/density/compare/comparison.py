"""All mixing layers on equal terms: the same tiles in the same order, noise, seeds and steps."""

from __future__ import annotations

import datetime
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import invconv
from invconv_benchmarks.density.compare import picture, report, result, summary
from invconv_benchmarks.density.compare.outcome import Job, Outcome
from invconv_benchmarks.density.compare.plan import Comparison
from invconv_benchmarks.density.compare.result import Result
from invconv_benchmarks.density.compare.workers import run
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.evaluation import evaluation
from invconv_benchmarks.density.evaluation.sampling import SamplingTime, time_sampling
from invconv_benchmarks.density.models.architecture import MIXINGS
from invconv_benchmarks.measure import environment
from invconv_torch.flows import Multiscale

Say = Callable[[str], None]

THREADS = 1


def perform(comparison: Comparison, data: Dataset, console: Console) -> Result | None:
    """Train what is not yet trained, write the result and the picture; None if interrupted.

    Raises
    ------
    ValueError, OSError
        If a run cannot go on, or a file cannot be written. What is done stays done.
    """
    start, load = time.monotonic(), {"start": environment.load()}
    outcomes, sampling, galleries = _run(comparison, data, console)
    if comparison.left(outcomes):
        return None
    jobs = comparison.final(outcomes)
    architecture, training = asdict(jobs[0].recipe.architecture), jobs[0].recipe.training
    del architecture["mixing"]
    settings = asdict(training) | {"steps": training.length(len(data))}
    del settings["learning_rate"]
    found = Result(
        invconv=invconv.__version__,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=f"python -m invconv {shlex.join(sys.argv[1:])}",
        environment=environment.environment(),
        workers=comparison.workers,
        threads=THREADS,
        quick=comparison.quick,
        preset=comparison.preset.name,
        about=comparison.preset.about,
        data=_described(data),
        architecture=architecture,
        training=settings,
        seeds=list(comparison.seeds),
        paper=dict(comparison.preset.paper),
        seconds=round(time.monotonic() - start, 1),
        load=load | {"end": environment.load()},
        rows=summary.rows(jobs, outcomes),
        sampling=sampling,
        sweep=summary.sweep(comparison.sweep(outcomes), outcomes),
    )
    result.write(comparison.folder / "result.json", found)
    found = result.read(comparison.folder / "result.json")
    picture.draw(found, galleries, comparison.folder / "comparison.jpg")
    return found


def _run(
    comparison: Comparison, data: Dataset, console: Console
) -> tuple[dict[str, Outcome], list[SamplingTime], dict[str, picture.Gallery]]:
    """Train, and sample from what was trained; jobs are left if it was interrupted."""
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(
        f"training in {comparison.folder}, {comparison.workers} runs at a time: "
        "interrupted, the same command goes on from there"
    )
    outcomes = run(
        comparison.left,
        (data.name, comparison.path),
        comparison.folder,
        comparison.workers,
        lambda name, outcome: say(f"{name}: {_ending(outcome)}"),
    )
    if comparison.left(outcomes):
        return outcomes, [], {}
    return outcomes, *_sampled(comparison.final(outcomes), outcomes, comparison.folder, data, say)


def _ending(outcome: Outcome) -> str:
    if outcome.error:
        return f"[red]stopped[/] at {outcome.error}"
    parts = {"validation": outcome.validation, "test": outcome.mean}
    said = [f"{bits:.3f} ({part})" for part, bits in parts.items() if bits is not None]
    return f"{', '.join(said)} bits/dim"


def _described(data: Dataset) -> dict[str, Any]:
    validation = 0 if data.validation is None else len(data.validation)
    sizes = {"train": len(data), "validation": validation, "test": len(data.test)}
    return {"name": data.name, "fingerprint": data.fingerprint, "watched": data.watched, **sizes}


def show(found: Result, folder: Path, console: Console) -> None:
    """Print the tables and the findings."""
    for section in report.sections(found):
        console.print(section.about.replace("**", ""), highlight=False, soft_wrap=True)
        console.print(section.table())
        console.print()
    for sentence in summary.findings(found.rows, found.sweep):
        console.print(sentence, highlight=False, soft_wrap=True)
    ended = f"{folder}/result.json and comparison.jpg: {found.seconds:.0f} s"
    console.print(ended, markup=False)


def _sampled(
    jobs: Sequence[Job], outcomes: Mapping[str, Outcome], folder: Path, data: Dataset, say: Say
) -> tuple[list[SamplingTime], dict[str, picture.Gallery]]:
    """Time samples of the first seed's models on one thread, and reconstruct and sample some."""
    models: dict[str, Multiscale] = {}
    for job in jobs:
        mixing = job.recipe.architecture.mixing
        if mixing not in models and outcomes[job.name].bits:
            models[mixing] = evaluation.restore(folder / job.name)[1]
    models = {mixing: models[mixing] for mixing in MIXINGS if mixing in models}
    said: set[str] = set()

    def begin(text: str) -> None:
        if text not in said:
            said.add(text)
            say(f"sampling from {text}")

    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        times = time_sampling(models, progress=begin)
        return times, {mixing: picture.gallery(model, data) for mixing, model in models.items()}
    finally:
        torch.set_num_threads(threads)
