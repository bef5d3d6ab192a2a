"""All mixing layers on equal terms: the same tiles in the same order, noise, seeds and steps.

The picture has learning curves, paired differences, reconstructions and samples.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LogNorm
from threadpoolctl import threadpool_limits

from invconv_benchmarks.density import evaluation
from invconv_benchmarks.density.compare import result
from invconv_benchmarks.density.compare.result import BASELINE, Result, color, title
from invconv_benchmarks.density.compare.rows import Comparison, place, train_rows
from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.report.figures import Floats, save, stretch
from invconv_torch.flows import Multiscale

_SAMPLES = 100
RESTORED, SAMPLED = 4, 10  # tiles of each model
# test images, their reconstructions and samples, bytes (N, C, H, W); then the error (N, H, W), the
# largest over the colours, in units of a pixel's 256 values
Gallery = tuple[Floats, Floats, Floats, Floats]


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
    galleries = {mixing: gallery(model, data) for mixing, model in models.items()}
    draw(measured, galleries, comparison.folder / "comparison.jpg")
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


@torch.no_grad()  # type: ignore[untyped-decorator]
def gallery(model: Multiscale, data: Dataset) -> Gallery:
    """Reconstruct some test images, and draw samples, from one noise where latents agree."""
    x = evaluation.images_of_test(model, data, RESTORED)
    back = model.decode(model.encode(x)[0])
    generator = torch.Generator().manual_seed(evaluation.SAMPLE_SEED)
    samples = evaluation.pixels(model, model.sample(SAMPLED, generator=generator))
    error = 256 * (back - x).abs().amax(dim=1).double().cpu().numpy()
    return data.test[:RESTORED], evaluation.pixels(model, back), samples, error


def draw(result: Result, galleries: Mapping[str, Gallery], path: Path) -> None:
    """Write the picture, of models without a gallery the curves and differences alone."""
    height = 0.4 + 0.56 * len(galleries) if galleries else 0.0
    figure = plt.figure(figsize=(13.4, 5 + height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15)  # the rows' names need more than the layout leaves
    above = figure
    if galleries:
        above, below = figure.subfigures(2, 1, height_ratios=[5, height])
        _tiles(below, galleries)
    curves, differences = above.subplots(1, 2, width_ratios=[1.5, 1])
    _curves(curves, result)
    _differences(differences, result)
    save(figure, path)


def _curves(axis: Any, result: Result) -> None:
    last, ends = [], []
    for row in result["rows"]:
        runs = [run["history"] for run in row["runs"] if run["history"]]
        if not runs:
            continue
        length, mixing = min(map(len, runs)), row["mixing"]
        steps = [entry["step"] for entry in runs[0][:length]]
        values = np.asarray([[entry["held_out"] for entry in run[:length]] for run in runs])
        mean = values.mean(axis=0)
        ends.append((mean[-1], axis.plot(steps, mean, color=color(mixing), label=title(mixing))))
        ends_of_all = values.min(axis=0), values.max(axis=0)
        axis.fill_between(steps, *ends_of_all, color=color(mixing), alpha=0.15)
        last += [values[:, -1].min(), np.median(values)]
    if last:
        low, high = min(last), max(last)
        span = high - low or 1
        axis.set_ylim(low - 0.05 * span, high + 0.6 * span)
        lines = [line for _, (line,) in sorted(ends, key=lambda end: -end[0])]
        axis.legend(handles=lines, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(xlabel="steps", ylabel=f"bits/dim of the {result['data']['watched']} tiles")
    axis.set_title("learning curves, averaged parameters; shaded: all seeds", fontsize=10)
    axis.grid(alpha=0.3)


def _differences(axis: Any, result: Result) -> None:
    shown = [(row["mixing"], row["difference"]) for row in result["rows"] if row["difference"]]
    for y, (mixing, found) in enumerate(shown):
        axis.errorbar(found["mean"], y, xerr=found["std"], color=color(mixing), fmt="o", capsize=3)
        axis.plot(found["each"], [y + 0.25] * found["count"], ".", color=color(mixing), ms=4)
    axis.axvline(0, color=color(BASELINE), lw=0.8)
    axis.set_yticks(range(len(shown)), [title(mixing) for mixing, _ in shown])
    axis.set_ylim(max(1, len(shown)) - 0.5, -0.5)
    axis.set_xlabel("bits/dim from the plain 1×1, seed by seed")
    axis.locator_params(axis="x", nbins=5)
    axis.set_title("paired differences; dots: each seed", fontsize=10)
    axis.grid(axis="x", alpha=0.3)


def _tiles(figure: Any, galleries: Mapping[str, Gallery]) -> None:
    widths = [RESTORED, RESTORED, RESTORED, SAMPLED]
    axes = figure.subplots(len(galleries), 4, width_ratios=widths, squeeze=False)
    dark = np.mean([test.mean() for test, *_ in galleries.values()]) < 64
    for line, (mixing, (*tiles, error)) in zip(axes, galleries.items(), strict=True):
        for axis, pixels in zip(line[[0, 1, 3]], tiles, strict=True):
            strip = np.concatenate([np.moveaxis(tile, 0, -1) for tile in pixels], axis=1)
            axis.imshow(stretch(strip / 255) if dark else strip, cmap="gray")
        across = np.concatenate(list(error), axis=1).clip(1e-6)
        shades = line[2].imshow(across, norm=LogNorm(1e-5, 1), cmap="magma")
        line[0].set_ylabel(title(mixing), rotation=0, ha="right", va="center", size=8)
        for axis in line:
            axis.set(xticks=[], yticks=[])
    how = ", brightened" * bool(dark)
    titles = (f"test tiles{how}", "reconstructed", "error", f"samples{how}")
    for axis, text in zip(axes[0], titles, strict=True):
        axis.set_title(text, fontsize=10)
    figure.colorbar(shades, ax=axes, shrink=0.6, aspect=30, label="of 1 / 256")
