"""The runs of a comparison, row by row: a sweep of learning rates, whose best is reported.

``benchmarks/README.md`` describes the sweep. The test part sees models of the chosen rate alone.
"""

import json
import math
import signal
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from invconv.arrays.errors import CommandError
from invconv.files.container import write_text
from invconv_benchmarks.density import evaluation
from invconv_benchmarks.density.data import Dataset, load
from invconv_benchmarks.density.peers import PEERS
from invconv_benchmarks.density.recipe import CHECKPOINT, Preset, Recipe, imported
from invconv_benchmarks.density.training import DivergedError, train
from invconv_benchmarks.measure import environment
from invconv_benchmarks.suites import MIXINGS
from invconv_conformance.libraries import settings

ROWS = (*MIXINGS, *PEERS)  # in the order of the tables
RATES = tuple(float(f"{digit}e{power}") for power in range(-5, 0) for digit in (1, 3))

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Rows with the same preset, changes, seeds and data."""

    preset: Preset
    changes: Mapping[str, Any]  # arguments of `Preset.recipe`
    seeds: Sequence[int]
    rates: Sequence[float]  # sweeps begin with these; a single rate is taken as it is
    path: Path | None
    folder: Path
    mixings: Sequence[str] = ROWS

    def recipe(self, mixing: str, seed: int, rate: float) -> Recipe:
        """Return the recipe of a run."""
        return self.preset.recipe(mixing, seed, **{**self.changes, "learning_rate": rate})

    def run_folder(self, mixing: str, seed: int, rate: float) -> Path:
        """Return the folder of a run."""
        text = f"{rate:g}" if float(f"{rate:g}") == rate else repr(rate)
        return self.folder / f"{mixing.replace(':', '.')}-seed{seed}-rate{text}"


@dataclass(frozen=True)
class RowRuns:
    """A row's runs, each with an "error", or "parameters", "history", "validation" and "bits"."""

    mixing: str
    sweep: dict[float, dict[int, Outcome]]  # by learning rate and seed, without bits of test tiles
    rate: float  # the best one
    runs: dict[int, Outcome]  # at that rate, by seed


def place(mixing: str) -> int:
    """Return a row's place in the tables: rows of users' classes come last."""
    return ROWS.index(mixing) if mixing in ROWS else len(ROWS)


def around(rate: float) -> tuple[float, ...]:
    """Return a learning rate and its neighbours among 1, 3, 10, 30, ... times a power of ten.

    >>> around(0.03)
    (0.01, 0.03, 0.1)
    """
    return tuple(sorted(r for r in (rate, *_beside(rate, rate)) if r is not None))


def _beside(least: float, most: float) -> tuple[float | None, float | None]:
    below, above = (r for r in RATES if r < least / 1.5), (r for r in RATES if r > most * 1.5)
    return max(below, default=None), min(above, default=None)


def next_rate(losses: Mapping[float, float]) -> float | None:
    """Return the rate to try next, from losses by rate (inf if a run stopped); None at the end.

    >>> next_rate({0.01: 3.9, 0.03: 3.8, 0.1: 3.7})
    0.3
    """
    best, least, most = best_rate(losses), min(losses), max(losses)
    below, above = _beside(least, most)
    if best == most and losses[best] < math.inf:
        return above
    return below if best == least else None


def best_rate(losses: Mapping[float, float]) -> float:
    """Return the rate of the least loss, the smallest of several."""
    return min(sorted(losses), key=losses.__getitem__)


_load = lru_cache(maxsize=1)(load)
_stop: Any = None  # an event, shared by all worker processes


def train_row(comparison: Comparison, mixing: str, data: str) -> RowRuns:
    """Train and evaluate all runs of a row, from where they were left."""
    imported(mixing)  # in a worker process
    waiting = sorted(comparison.rates)
    best, sweep = waiting[0], dict[float, dict[int, Outcome]]()
    images = _load(data, comparison.path)

    def of_seeds(rate: float, final: bool) -> dict[int, Outcome]:
        return {
            seed: outcome_of(comparison, mixing, seed, rate, images, final=final)
            for seed in comparison.seeds
        }

    while len(comparison.rates) > 1 and waiting:
        rate = waiting.pop(0)
        sweep[rate] = of_seeds(rate, final=False)
        if not waiting:
            losses = {
                rate: statistics.fmean(one.get("validation", math.inf) for one in outcomes.values())
                for rate, outcomes in sweep.items()
            }
            best, further = best_rate(losses), next_rate(losses)
            waiting = [] if further is None else [further]
    return RowRuns(mixing, sweep, best, of_seeds(best, final=True))


def outcome_of(
    comparison: Comparison, mixing: str, seed: int, rate: float, data: Dataset, *, final: bool
) -> Outcome:
    """Train and evaluate, or return the outcome that outcome.json keeps of the same run."""
    recipe = comparison.recipe(mixing, seed, rate)
    folder = comparison.run_folder(mixing, seed, rate)
    path, identity = folder / "outcome.json", {"recipe": asdict(recipe), "data": data.fingerprint}
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError, ValueError):  # there is no outcome, or it is cut off
        known = {}
    outcome: Outcome = known.pop("outcome", {})
    usable = not final or (outcome.get("bits") and (folder / CHECKPOINT).exists())
    if known == identity and ("error" in outcome or usable):
        return outcome
    try:
        run = train(recipe, data, folder, should_stop=_stop.is_set, seconds=30)
        if run.step < run.steps:
            raise KeyboardInterrupt  # the parent was interrupted, and told this process
        outcome = {
            "parameters": sum(p.numel() for p in run.flow.parameters()),
            "history": run.history,
            "bits": evaluation.bits_per_dim(run.average, data).tolist() if final else None,
        }
        bits = run.history[-1]["held_out"]
        outcome |= {"validation": bits} if data.watched == "validation" else {}
        print(f"{folder.name}: {bits:.3f} bits/dim ({data.watched})", flush=True)
    except DivergedError as error:  # another try would diverge, too
        outcome = {"error": str(error)}
        print(f"{folder.name}: stopped at {error}", flush=True)
    write_text(path, json.dumps(identity | {"outcome": outcome}, allow_nan=False) + "\n")
    return outcome


def train_rows(comparison: Comparison, data: str, workers: int) -> Iterator[RowRuns]:
    """Yield all rows, from so many processes of one thread; interrupted, they save their runs."""
    stop = environment.SPAWN.Event()
    with environment.pool(workers, settings(1, ""), _begin, stop) as pool:
        try:
            slowest_first = sorted(comparison.mixings, key=place, reverse=True)
            rows = [pool.submit(train_row, comparison, m, data) for m in slowest_first]
            yield from (row.result() for row in as_completed(rows))
        except BrokenProcessPool:
            killed = "a worker process was killed, perhaps for want of memory"
            raise CommandError(f"{killed}; the same command goes on") from None
        finally:
            stop.set()  # runs that go on save themselves and end
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(stop: Any) -> None:
    global _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sets `stop` instead
    torch.set_num_threads(1)
    _stop = stop
