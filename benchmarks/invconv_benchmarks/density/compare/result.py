"""The result of a comparison: a JSON file with a checksum, its statistics, and its tables.

Of each row "bits" has the mean, std and count over seeds, "difference" the same of bits/dim from
the plain row, seed by seed, with each of them. Tables are Markdown, for terminal and README alike.
"""

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invconv_benchmarks.density.compare.rows import Outcome, RowRuns, place
from invconv_benchmarks.measure.environment import told
from invconv_benchmarks.report import tables
from invconv_benchmarks.results.result import read_document, write_document

BASELINE = "plain"
_SCHEMA = "invconv-density/2"

Result = dict[str, Any]
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


def write(path: Path, result: Result) -> None:
    """Write a result with its checksum, at once or not at all."""
    write_document(path, {"schema": _SCHEMA} | result)


def read(path: Path) -> Result:
    """Return a comparison's result; a file that was changed or cut off is refused."""
    return read_document(path, _SCHEMA)


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
    pairs = zip(words, ["", *words], strict=False)  # with the word before
    shown = [w for w, before in pairs if w.partition("=")[0] not in gone and before not in gone]
    return (
        f"`{shlex.join(shown)}`: "
        f"{data['name'].capitalize()}, {data['test']} test tiles, {training['steps']} steps of "
        f"{training['batch']} tiles, {count} seed{'s' * (count > 1)}, one thread a run, "
        f"{result['environment']['cpu']}, {told(result, 'torch')}. Mean ± standard "
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
