"""All mixing layers on equal terms: the same tiles in the same order, noise, seeds and steps.

In each row of the result "bits" has mean, std and count over seeds; "difference" has the same for
the differences from the plain row, seed by seed, and each difference. Tables are Markdown, for
terminal and README alike.
"""

import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from invconv_benchmarks.density import evaluation
from invconv_benchmarks.density.data import Dataset
from invconv_benchmarks.density.rows import Comparison, Outcome, RowRuns, place, train_rows
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.report import tables
from invconv_benchmarks.report.figures import Floats, save, stretch
from invconv_benchmarks.results.result import write_document
from invconv_torch.flows import Multiscale

BASELINE = "plain"
SCHEMA = "invconv-density/2"
CAPTION = (
    "Learning curves of all models; differences from the plain 1x1, seed by seed; test tiles, "
    "their reconstructions and the error; samples"
)
APPEARANCE = {
    "plain": ("plain 1×1", "#333333"),
    "plu": ("PLU 1×1", "#8c8c8c"),
    "qr": ("QR 1×1", "#4c78a8"),
    "orthogonal": ("orthogonal 1×1", "#5aa9e6"),
    "circulant": ("circulant 1×1", "#1b3a8a"),
    "householder": ("Householder 1×1", "#7fb3b5"),
    "emerging": ("emerging 3×3", "#e4572e"),
    "emerging_plu": ("emerging, PLU", "#f4a259"),
    "emerging_qr": ("emerging, QR", "#8c1c13"),
    "periodic": ("periodic 3×3", "#2a9d8f"),
    "symmetric": ("symmetric 3×3", "#70a01f"),
    "exponential": ("exponential 3×3", "#c2378f"),
    "real_nvp": ("Real NVP, ours", "#b8860b"),
    "maf": ("MAF, ours", "#6b3fa0"),
}
_SAMPLES = 100
RESTORED, SAMPLED = 4, 10  # tiles of each model

Result = dict[str, Any]
# test images, their reconstructions and samples, bytes (N, C, H, W); then the error (N, H, W), the
# largest over the colours, in units of a pixel's 256 values
Gallery = tuple[Floats, Floats, Floats, Floats]


def perform(comparison: Comparison, data: Dataset, workers: int) -> Result:
    """Train the runs that are not yet trained; write result.json and comparison.jpg."""
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
        **statistics_of(rows),
    }
    write_document(comparison.folder / "result.json", {"schema": SCHEMA} | measured)
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


def statistics_of(rows: Sequence[RowRuns]) -> Result:
    """Return "rows" and "sweep" of a result."""
    ordered = sorted(rows, key=lambda row: place(row.mixing))
    plain: Mapping[int, Outcome] = next((r.runs for r in rows if r.mixing == BASELINE), {})
    sweep = [
        {"mixing": row.mixing, "learning_rate": rate, "seed": seed}
        | {name: outcome.get(name) for name in ("validation", "error")}
        for row in ordered
        for rate, outcomes in sorted(row.sweep.items())
        for seed, outcome in outcomes.items()
    ]
    return {"rows": [_row(row, plain) for row in ordered], "sweep": sweep}


def _row(row: RowRuns, plain: Mapping[int, Outcome]) -> Result:
    runs = [
        {
            "seed": seed,
            "error": outcome.get("error"),
            "bits": statistics.fmean(outcome["bits"]) if outcome.get("bits") else None,
            "history": outcome.get("history", []),
        }
        for seed, outcome in row.runs.items()
    ]
    times = [entry["seconds_per_step"] for run in runs for entry in run["history"]]
    return {
        "mixing": row.mixing,
        "learning_rate": row.rate,
        "parameters": next((o["parameters"] for o in row.runs.values() if "bits" in o), None),
        "seconds_per_step": statistics.median(times) if times else None,
        "bits": spread([run["bits"] for run in runs if run["bits"] is not None]),
        "difference": None if row.mixing == BASELINE else difference(row.runs, plain),
        "runs": runs,
    }


def spread(values: Sequence[float]) -> Result | None:
    """Return mean and standard deviation (None of one value), None of no value."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "count": len(values)}


def difference(runs: Mapping[int, Outcome], plain: Mapping[int, Outcome]) -> Result | None:
    """Return the differences of bits/dim from the baseline, seed by seed, on the same tiles."""
    pairs = [
        np.subtract(run["bits"], plain[seed]["bits"])
        for seed, run in sorted(runs.items())
        if run.get("bits") and plain.get(seed, {}).get("bits")
    ]
    each = [float(pair.mean()) for pair in pairs]
    found = spread(each)
    if found is None:
        return None
    return found | {"each": each, "lower": sum(d < 0 for d in each)}


def title(mixing: str) -> str:
    """Return a row's name for people."""
    return APPEARANCE.get(mixing, (mixing, ""))[0]


def color(mixing: str) -> str:
    """Return a row's colour."""
    return APPEARANCE.get(mixing, ("", "black"))[1]


def markdown(result: Result) -> list[str]:
    """Return the lines of the tables: the rows, the sweep of learning rates, runs that stopped."""
    heads = ["", "rate", "params", "bits/dim", "from plain", "lower", "ms", "100 of", "paper"]
    cells = [_cells(row, result) for row in result["rows"]]
    lines = [_about(result), "", *tables.markdown(heads, cells)]
    if result.get("round_trips"):
        lines += ["", *_round_trips(result)]
    if result["sweep"]:
        lines += ["", *_sweep(result)]
    stopped = [
        f"- {title(row['mixing'])}, seed {run['seed']}, stopped: {run['error']}"
        for row in result["rows"]
        for run in row["runs"]
        if run["error"]
    ]
    return [*lines, "", *stopped] if stopped else lines


def _about(result: Result) -> str:
    training, data = result["training"], result["data"]
    count = len(result["seeds"])
    words, gone = shlex.split(result["command"])[2:], ("--out", "--workers")
    pairs = zip(words, ["", *words], strict=False)  # each word with the one before
    shown = [w for w, before in pairs if w.partition("=")[0] not in gone and before not in gone]
    return (
        f"`{shlex.join(shown)}`: "
        f"{data['name'].capitalize()}, {data['test']} test tiles, {training['steps']} steps of "
        f"{training['batch']} tiles, {count} seed{'s' * (count > 1)}, one thread a run, "
        f"{result['environment']['cpu']}, {environment.told(result, 'torch')}. Mean ± standard "
        "deviation over seeds; differences are paired: the same tiles, order and noise. lower: "
        "seeds with less than plain; ms: of a step by the wall's clock; 100 of: time for 100 "
        "samples; paper: **other images**, "
        f"{result['paper'].get('of', 'no numbers')}."
    )


def _cells(row: Result, result: Result) -> list[str]:
    mixing, difference, per_step = row["mixing"], row["difference"], row["seconds_per_step"]
    stopped = any(run["error"] for run in row["runs"])
    times = [time["seconds"] for time in result["sampling"] if time["model"] == mixing]
    return [
        title(mixing),
        f"{row['learning_rate']:g}",
        f"{row['parameters']:,}".replace(",", " ") if row["parameters"] else "–",
        _spread(row["bits"], "stopped" if stopped else "–", ""),
        _spread(difference, "–", "+"),
        f"{difference['lower']} of {difference['count']}" if difference else "–",
        f"{1e3 * per_step:.0f}" if per_step else "–",
        tables.duration(times[0]) if times else "–",
        str(result["paper"].get(mixing, "–")),
    ]


def _spread(value: Any, absent: str, sign: str) -> str:
    if value is None:
        return absent
    mean, std = value["mean"], value["std"]
    text = f"{mean:{sign}.3f}"
    if sign and abs(mean) < 1:
        text = text.replace("0", "", 1)
    return text if std is None else f"{text} ± " + f"{std:.3f}".removeprefix("0")


def _round_trips(result: Result) -> list[str]:
    """Return the lines of a table of `evaluation.RoundTrips`."""
    trips, seed = result["round_trips"], result["seeds"][0]
    count = trips[0]["count"]
    heads = ["", "largest, images", "mean", "largest, noise", "mean"]
    heads += ["not finite", "out of range", "numbers", "digits", "of layer"]
    rows = []
    for trip in trips:
        errors = [trip[name] or (math.nan, math.nan) for name in ("image_errors", "noise_errors")]
        cells = [f"{error:.1e}" for error in (*errors[0], *errors[1])]
        outside = trip["count"] - trip["not_finite"] - trip["in_range"]
        share = "–" if trip["outside"] is None else f"{trip['outside']:.2%}"
        samples = [str(trip["not_finite"]), str(outside), share]
        diagnosed = [f"{trip['digits']:.1f}", trip["layer"]]
        rows.append([title(trip["mixing"]), *cells, *samples, *diagnosed])
    return [
        f"Round trips of seed {seed}'s models, float32: errors of decode(encode(x)) for "
        f"{min(count, result['data']['test'])} test images x in [0, 1), and of encode(decode(z)) "
        f"for {count} samples; samples that are not finite, or somewhere not in [0, 1), and the "
        "share of such numbers; the digits of float32's 6.9 that `invconv.diagnose` leaves to the "
        "layer that has fewest:",
        "",
        *tables.markdown(heads, rows),
    ]


def _sweep(result: Result) -> list[str]:
    entries, data = result["sweep"], result["data"]
    rates = sorted({entry["learning_rate"] for entry in entries})
    chosen = {row["mixing"]: row["learning_rate"] for row in result["rows"]}

    def cell(mixing: str, rate: float) -> str:
        of_rate = [e for e in entries if (e["mixing"], e["learning_rate"]) == (mixing, rate)]
        values = [entry["validation"] for entry in of_rate]
        if None in values:
            return "stopped"
        best = "*" if rate == chosen[mixing] else ""
        return f"{statistics.fmean(values):.3f}{best}" if values else "–"

    rows = [(title(mixing), *(cell(mixing, rate) for rate in rates)) for mixing in chosen]
    return [
        f"bits/dim of {data['validation']} validation tiles by learning rate, mean over the seeds, "
        "* the best:",
        "",
        *tables.markdown(("", *(f"{rate:g}" for rate in rates)), rows),
    ]


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
        shades = line[2].imshow(across, norm="log", vmin=1e-5, vmax=1, cmap="magma")
        line[0].set_ylabel(title(mixing), rotation=0, ha="right", va="center", size=8)
        for axis in line:
            axis.set(xticks=[], yticks=[])
    how = ", brightened" * bool(dark)
    titles = (f"test tiles{how}", "reconstructed", "error", f"samples{how}")
    for axis, text in zip(axes[0], titles, strict=True):
        axis.set_title(text, fontsize=10)
    figure.colorbar(shades, ax=axes, shrink=0.6, aspect=30, label="of 1 / 256")
