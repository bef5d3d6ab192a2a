"""What a comparison found: statistics over seeds, paired where the question is who is better."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invconv_benchmarks.density.compare.outcome import Job, Outcome
from invconv_benchmarks.density.evaluation.evaluation import NEAR
from invconv_benchmarks.density.models.architecture import MIXINGS

BASELINE = "plain"

Floats = np.ndarray[Any, Any]


def rows(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Return a row for each mixing layer of the runs that are no sweep.

    Parameters
    ----------
    jobs : sequence of Job
    outcomes : mapping of str to Outcome
        By the jobs' names.
    """
    by_mixing: dict[str, dict[int, Outcome]] = {}
    for job in jobs:
        if not job.sweep:
            recipe = job.recipe
            by_mixing.setdefault(recipe.architecture.mixing, {})[recipe.seed] = outcomes[job.name]
    baseline = by_mixing.get(BASELINE, {})
    ordered = sorted(by_mixing.items(), key=lambda item: MIXINGS.index(item[0]))
    return [_row(mixing, runs, baseline) for mixing, runs in ordered]


def _row(
    mixing: str, runs: Mapping[int, Outcome], baseline: Mapping[int, Outcome]
) -> dict[str, Any]:
    ended = [run for run in runs.values() if run["bits"]]
    first = ended[0] if ended else None
    return {
        "mixing": mixing,
        "parameters": first["parameters"] if first else None,
        "seconds_per_step": statistics.median(r["seconds_per_step"] for r in ended)
        if ended
        else None,
        "bits": spread([_mean(run) for run in ended]),
        "difference": None if mixing == BASELINE else _difference(runs, baseline),
        "images": first["images"] if first else None,
        "samples": first["samples"] if first else None,
        "runs": [
            {
                "seed": seed,
                "error": run["error"],
                "bits": _mean(run) if run["bits"] else None,
                "history": run.get("history", []),
            }
            for seed, run in sorted(runs.items())
        ],
    }


def standard_error(values: Floats) -> float | None:
    """Return that of the mean, None of one value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def spread(values: Sequence[float]) -> dict[str, Any] | None:
    """Return mean and standard deviation (None of one value), None of no value."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "count": len(values)}


def _difference(
    runs: Mapping[int, Outcome], baseline: Mapping[int, Outcome]
) -> dict[str, Any] | None:
    """Return the difference of bits/dim from the baseline, seed by seed.

    Both see the same tiles in the same order with the same noise, in training and in the test.
    """
    pairs = [
        (np.asarray(run["bits"]), np.asarray(baseline[seed]["bits"]))
        for seed, run in sorted(runs.items())
        if run["bits"] and seed in baseline and baseline[seed]["bits"]
    ]
    if not pairs:
        return None
    each = [float((one - other).mean()) for one, other in pairs]
    tiles = np.mean([one - other for one, other in pairs], axis=0)
    return {
        **(spread(each) or {}),
        "each": each,
        "lower": sum(d < 0 for d in each),
        # of the mean over the test tiles: how much other tiles of the same kind would change it
        "tiles_error": standard_error(tiles),
    }


def sweep(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Return the runs at each learning rate, if there are several rates; one seed of each."""
    if not any(job.sweep for job in jobs):
        return []
    seed = next(job.recipe.seed for job in jobs if job.sweep)
    return [
        {
            "mixing": job.recipe.architecture.mixing,
            "learning_rate": job.recipe.training.learning_rate,
            "seed": seed,
            "bits": _mean(outcomes[job.name]) if outcomes[job.name]["bits"] else None,
            "error": outcomes[job.name]["error"],
        }
        for job in sorted(jobs, key=lambda job: MIXINGS.index(job.recipe.architecture.mixing))
        if job.recipe.seed == seed
    ]


def _mean(outcome: Outcome) -> float:
    return statistics.fmean(outcome["bits"])


def best(entries: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return each mixing layer's best (bits/dim, learning rate) of a sweep."""
    found: dict[str, tuple[float, float]] = {}
    for entry in entries:
        if entry["bits"] is not None:
            new = (entry["bits"], entry["learning_rate"])
            found[entry["mixing"]] = min(found.get(entry["mixing"], new), new)
    return found


def findings(document: Mapping[str, Any]) -> list[str]:
    """Say in sentences what was found, whichever way it came out."""
    said = []
    if any(row["difference"] and row["difference"]["count"] == 1 for row in document["rows"]):
        said.append("One seed does not tell how much seeds differ.")
    for row in document["rows"]:
        if row["difference"]:
            said.append(f"{title(row['mixing'])}: {_verdict(row['difference'])}.")
        for run in row["runs"]:
            if run["error"]:
                said.append(f"{title(row['mixing'])}, seed {run['seed']}, stopped: {run['error']}.")
    if document["sweep"]:
        said.append(_rates(document["sweep"]))
    return [*said, *_round_trips(document["rows"])]


def _round_trips(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how many images and samples came back; none is left out of the counts."""
    trips = {name: [r[name] for r in rows if r[name]] for name in ("images", "samples")}
    if not trips["images"]:
        return []

    def total(name: str, what: str) -> int:
        return sum(trip[what] for trip in trips[name])

    # None where nothing finite came back, which the counts say
    outside = [t["numbers_outside"] for t in trips["samples"] if t["numbers_outside"] is not None]
    errors = [trip["error"] for trip in trips["images"] if trip["error"] is not None]
    worst = f", the worst to {256 * max(errors):.1g} of one of 256 values" if errors else ""
    beyond = f"{min(outside):.1%} to {max(outside):.1%}" if outside else "none"
    inside = total("samples", "in_range")
    return [
        f"Reconstruction: {total('images', 'in_range_within')} of {total('images', 'count')} test "
        f"tiles come back from their noise within the bound of float32's rounding{worst}.",
        f"Samples: of {total('samples', 'count')}, {total('samples', 'non_finite')} are not "
        f"finite, {total('samples', 'returned')} return to within {NEAR:g} of their noise. "
        f"{inside} are in range everywhere"
        + (f", {total('samples', 'in_range_within')} of them within the bound" if inside else "")
        + f"; {beyond} of the numbers are not, as images are dark.",
    ]


def _verdict(difference: Mapping[str, Any]) -> str:
    mean, count, lower = difference["mean"], difference["count"], difference["lower"]
    side = "below" if mean < 0 else "above"
    error = difference["tiles_error"]
    tiles = "one test tile" if error is None else f"± {error:.3f} over the test tiles"
    if count == 1:
        return f"{abs(mean):.3f} bits/dim {side} plain in one seed ({tiles})"
    spread_text = f"{mean:+.3f} ± {difference['std']:.3f} over {count} seeds ({tiles})"
    if lower in (0, count) and abs(mean) > difference["std"]:
        return f"{side} plain in every seed, {spread_text}"
    return f"level with plain, {spread_text}, lower in {lower} of them"


def _rates(entries: Sequence[Mapping[str, Any]]) -> str:
    found = best(entries)
    parts = [f"{title(mixing)} {bits:.3f} at {rate:g}" for mixing, (bits, rate) in found.items()]
    text = f"Each at the best of its learning rates, seed {entries[0]['seed']}: {', '.join(parts)}"
    if BASELINE in found and "emerging" in found:
        gap = found["emerging"][0] - found[BASELINE][0]
        text += f"; emerging is then {gap:+.3f} from plain"
    stopped = sorted({f"{title(e['mixing'])} at {e['learning_rate']:g}" for e in entries
                      if e["error"]})  # fmt: skip
    return f"{text}; stopped: {', '.join(stopped)}." if stopped else f"{text}."


TITLES = {
    "plain": "plain 1×1",
    "plu": "PLU 1×1",
    "qr": "QR 1×1",
    "emerging": "emerging 3×3",
    "periodic": "periodic 3×3",
    "real_nvp": "Real NVP",
    "maf": "MAF",
}


def title(mixing: str) -> str:
    """Return a mixing layer's name for people."""
    return TITLES.get(mixing, mixing)
