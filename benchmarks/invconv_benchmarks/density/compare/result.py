"""The result of a comparison: a JSON file with a checksum, and the statistics in it.

Of each row "bits" has the mean, std and count over seeds, "difference" the same of bits/dim from
the plain row, seed by seed, with each of them.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invconv_benchmarks.density.compare.rows import Outcome, RowRuns, place
from invconv_benchmarks.results import sealed

BASELINE = "plain"
_SCHEMA = "invconv-density/2"

Result = dict[str, Any]


def write(path: Path, result: Result) -> None:
    """Write a result with its checksum, at once or not at all."""
    sealed.write(path, {"schema": _SCHEMA} | result)


def read(path: Path) -> Result:
    """Return a comparison's result; a file that was changed or cut off is refused."""
    return sealed.read(path, _SCHEMA)


def statistics_of(rows: Sequence[RowRuns]) -> Result:
    """Return "rows" and "sweep" of a result."""
    by_mixing = {row.mixing: row for row in rows}
    ordered = sorted(rows, key=lambda row: place(row.mixing))
    plain = by_mixing[BASELINE].runs if BASELINE in by_mixing else {}
    sweep = [
        {
            "mixing": row.mixing,
            "learning_rate": rate,
            "seed": seed,
            "validation": outcome.get("validation"),
            "error": outcome.get("error"),
        }
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
    """Return the difference of bits/dim from the baseline, which sees the same, seed by seed."""
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
