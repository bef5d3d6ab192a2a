"""Statistics of a comparison over seeds, paired by seed where two models are compared."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from invconv_benchmarks.density.compare.outcome import Job, Outcome
from invconv_benchmarks.density.compare.result import Difference, Rate, Row, Run, Spread
from invconv_benchmarks.density.evaluation.round_trip import NEAR, Trip
from invconv_benchmarks.density.models.appearance import title
from invconv_benchmarks.density.models.architecture import MIXINGS

BASELINE = "plain"

Floats = np.ndarray[Any, Any]


def rows(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> list[Row]:
    """Return a row for each mixing layer of the runs that are reported.

    Parameters
    ----------
    jobs : sequence of Job
    outcomes : mapping of str to Outcome
        By the jobs' names.
    """
    by_mixing: dict[str, dict[int, Outcome]] = {}
    rates: dict[str, float] = {}
    for job in jobs:
        mixing, recipe = job.recipe.architecture.mixing, job.recipe
        by_mixing.setdefault(mixing, {})[recipe.seed] = outcomes[job.name]
        rates[mixing] = recipe.training.learning_rate
    baseline = by_mixing.get(BASELINE, {})
    ordered = sorted(by_mixing, key=MIXINGS.index)
    return [_row(mixing, rates[mixing], by_mixing[mixing], baseline) for mixing in ordered]


def _row(
    mixing: str, rate: float, runs: Mapping[int, Outcome], baseline: Mapping[int, Outcome]
) -> Row:
    ended = [run for run in runs.values() if run.bits]
    first = ended[0] if ended else Outcome()
    times = [run.seconds_per_step for run in ended if run.seconds_per_step is not None]
    return Row(
        mixing,
        rate,
        first.parameters,
        statistics.median(times) if times else None,
        spread([run.mean for run in ended if run.mean is not None]),
        None if mixing == BASELINE else _difference(runs, baseline),
        first.images,
        first.samples,
        [Run(seed, run.error, run.mean, run.history) for seed, run in sorted(runs.items())],
    )


def standard_error(values: Floats) -> float | None:
    """Return that of the mean, None of one value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and standard deviation (None of one value), None of no value."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), std, len(values))


def _difference(runs: Mapping[int, Outcome], baseline: Mapping[int, Outcome]) -> Difference | None:
    """Return the difference of bits/dim from the baseline, seed by seed.

    Both see the same tiles in the same order with the same noise, in training and in the test.
    """
    pairs = [
        (np.asarray(run.bits), np.asarray(baseline[seed].bits))
        for seed, run in sorted(runs.items())
        if run.bits and seed in baseline and baseline[seed].bits
    ]
    each = [float((one - other).mean()) for one, other in pairs]
    found = spread(each)
    if found is None:
        return None
    tiles = np.mean([one - other for one, other in pairs], axis=0)
    lower = sum(d < 0 for d in each)
    return Difference(**vars(found), each=each, lower=lower, tiles_error=standard_error(tiles))


def sweep(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> list[Rate]:
    """Return the runs of a sweep of learning rates."""
    found = []
    for job in sorted(jobs, key=lambda job: MIXINGS.index(job.recipe.architecture.mixing)):
        mixing, rate = job.recipe.architecture.mixing, job.recipe.training.learning_rate
        outcome = outcomes[job.name]
        found.append(Rate(mixing, rate, job.recipe.seed, outcome.validation, outcome.error))
    return found


def best(entries: Sequence[Rate]) -> dict[str, tuple[float, float]]:
    """Return each mixing layer's best (bits/dim of the validation part, learning rate)."""
    found: dict[str, tuple[float, float]] = {}
    for entry in entries:
        if entry.validation is not None:
            new = (entry.validation, entry.learning_rate)
            found[entry.mixing] = min(found.get(entry.mixing, new), new)
    return found


def findings(rows: Sequence[Row], rates: Sequence[Rate]) -> list[str]:
    """Return the findings in sentences, whichever way they came out."""
    said = []
    if any(row.difference and row.difference.count == 1 for row in rows):
        said.append("One seed does not tell how much seeds differ.")
    for row in rows:
        if row.difference:
            said.append(f"{title(row.mixing)}: {_verdict(row.difference)}.")
        for run in row.runs:
            if run.error:
                said.append(f"{title(row.mixing)}, seed {run.seed}, stopped: {run.error}.")
    stopped = [
        f"Stopped in the sweep, {title(rate.mixing)} at {rate.learning_rate:g}: {rate.error}."
        for rate in rates
        if rate.error
    ]
    return [*said, *stopped, *_round_trips(rows)]


def _round_trips(rows: Sequence[Row]) -> list[str]:
    """Say how many images and samples came back; none is left out of the counts."""
    images = [row.images for row in rows if row.images]
    samples = [row.samples for row in rows if row.samples]
    if not images:
        return []
    # None where nothing finite came back, which the counts say
    outside = [trip.numbers_outside for trip in samples if trip.numbers_outside is not None]
    errors = [trip.error for trip in images if trip.error is not None]
    worst = f", the worst to {256 * max(errors):.1g} of one of 256 values" if errors else ""
    beyond = f"{min(outside):.1%} to {max(outside):.1%}" if outside else "none"
    inside, within = _total(samples, "in_range"), _total(samples, "in_range_within")
    return [
        f"Reconstruction: {_total(images, 'in_range_within')} of {_total(images, 'count')} test "
        f"tiles come back from their noise within the bound of float32's rounding{worst}.",
        f"Samples: of {_total(samples, 'count')}, {_total(samples, 'non_finite')} are not "
        f"finite, {_total(samples, 'returned')} return to within {NEAR:g} of their noise. "
        f"{inside} are in range everywhere"
        + (f", {within} of them within the bound" if inside else "")
        + f"; {beyond} of the numbers are not, as images are dark.",
    ]


def _total(trips: Sequence[Trip], name: str) -> int:
    return sum(getattr(trip, name) for trip in trips)


def _verdict(difference: Difference) -> str:
    mean, count, lower = difference.mean, difference.count, difference.lower
    side = "below" if mean < 0 else "above"
    error = difference.tiles_error
    tiles = "one test tile" if error is None else f"± {error:.3f} over the test tiles"
    if count == 1:
        return f"{abs(mean):.3f} bits/dim {side} plain in one seed ({tiles})"
    std = difference.std or 0.0
    spread_text = f"{mean:+.3f} ± {std:.3f} over {count} seeds ({tiles})"
    if lower in (0, count) and abs(mean) > std:
        return f"{side} plain in every seed, {spread_text}"
    return f"level with plain, {spread_text}, lower in {lower} of them"
