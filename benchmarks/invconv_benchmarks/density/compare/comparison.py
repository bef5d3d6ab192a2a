"""All mixing layers on equal terms: the same tiles in the same order, noise, seeds and steps."""

import shlex
import sys
from dataclasses import asdict
from functools import partial

import torch
from threadpoolctl import threadpool_limits

from invconv_benchmarks.density.compare import picture, result
from invconv_benchmarks.density.compare.result import Result
from invconv_benchmarks.density.compare.rows import Comparison, place, train_rows
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.evaluation import evaluation
from invconv_benchmarks.measure import environment, timing
from invconv_torch.flows import Multiscale

_SAMPLES = 100


def perform(comparison: Comparison, data: Dataset, workers: int) -> Result:
    """Train runs that are not yet trained, write result.json and comparison.jpg."""
    finished, seed = environment.begin(), comparison.seeds[0]
    recipe = comparison.recipe(comparison.mixings[0], seed, comparison.rates[0])
    rows = list(train_rows(comparison, recipe.data, workers))
    models = {
        row.mixing: evaluation.restore(comparison.run_folder(row.mixing, seed, row.rate))[1]
        for row in sorted(rows, key=lambda row: place(row.mixing))
        if "bits" in row.runs[seed]
    }
    seconds = sampling_seconds(models)
    trips = {n: evaluation.round_trips(model, data, _SAMPLES) for n, model in models.items()}
    of_all = asdict(recipe) | {"steps": recipe.length(len(data))}
    of_rows = ("mixing", "seed", "learning_rate")
    measured: Result = {
        "command": f"python -m invconv {shlex.join(sys.argv[1:])}",
        "workers": workers,
        "preset": comparison.preset.name,
        "paper": dict(comparison.preset.paper),
        "data": {
            **{name: getattr(data, name) for name in ("name", "fingerprint", "watched")},
            "train": len(data),
            "validation": 0 if data.validation is None else len(data.validation),
            "test": len(data.test),
        },
        "training": {name: value for name, value in of_all.items() if name not in of_rows},
        "seeds": list(comparison.seeds),
        "sampling": [{"model": n, "count": _SAMPLES, "seconds": s} for n, s in seconds.items()],
        "round_trips": [{"mixing": n, **asdict(trip)} for n, trip in trips.items()],
        **finished(),
        **result.statistics_of(rows),
    }
    result.write(comparison.folder / "result.json", measured)
    galleries = {mixing: picture.gallery(model, data) for mixing, model in models.items()}
    picture.draw(measured, galleries, comparison.folder / "comparison.jpg")
    return measured


@torch.no_grad()  # type: ignore[untyped-decorator]
def sampling_seconds(models: dict[str, Multiscale]) -> dict[str, float]:
    """Return the time of 100 samples of each model, a median where it is short; one thread."""
    generator = torch.Generator().manual_seed(0)
    calls = {n: partial(m.decode, m.draw_latents(_SAMPLES, generator)) for n, m in models.items()}
    with threadpool_limits(1):
        seconds = timing.medians(calls, rounds=1)
        short = {name: call for name, call in calls.items() if seconds[name] < 1}
        return seconds | timing.medians(short, rounds=3)
