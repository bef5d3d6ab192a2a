"""Which runs a comparison needs, of what has ended: a sweep of learning rates, then all seeds.

Each row's rates are tried with the first seed, and the validation part chooses one. While the
best of them is the largest or the smallest, the sweep goes on there; a run that is stopped by
numbers that are not finite counts as worse than any that ended. The test part sees models of the
chosen rate alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from invconv_benchmarks.density.compare.outcome import Job, Outcome
from invconv_benchmarks.density.models.architecture import MIXINGS
from invconv_benchmarks.density.recipes.preset import Preset

RATES = tuple(float(f"{digit}e{power}") for power in range(-5, 0) for digit in (1, 3))
# slowest first, so that the workers end at about the same time
_ORDER = (
    *("exponential", "maf", "symmetric", "real_nvp", "periodic"),
    *("emerging_qr", "emerging_plu", "emerging", "qr", "plu", "circulant", "orthogonal", "plain"),
)

Outcomes = Mapping[str, Outcome]


def around(rate: float) -> tuple[float, ...]:
    """Return a learning rate and its neighbours among 1, 3, 10, 30, ... times a power of ten."""
    return (*_smaller(rate)[-1:], rate, *_larger(rate)[:1])


def _larger(rate: float) -> list[float]:
    return [other for other in RATES if other > 1.5 * rate]


def _smaller(rate: float) -> list[float]:
    return [other for other in RATES if other < rate / 1.5]


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes
    ----------
    preset : Preset
    changes : mapping
        As `Preset.recipe` takes them, the same for every row.
    seeds : sequence of int
    rates : sequence of float
        Learning rates with which the sweep begins; a single one is taken as it is.
    path : Path or None
        Of the user's data.
    folder : Path
    workers : int
    quick : bool
    mixings : sequence of str
    """

    preset: Preset
    changes: Mapping[str, Any]
    seeds: Sequence[int]
    rates: Sequence[float]
    path: Path | None
    folder: Path
    workers: int
    quick: bool
    mixings: Sequence[str] = MIXINGS

    @cached_property
    def _rows(self) -> list[str]:
        return [mixing for mixing in _ORDER if mixing in self.mixings]

    def job(self, mixing: str, seed: int, rate: float, **ends: bool) -> Job:
        """Return a run."""
        recipe = self.preset.recipe(mixing, seed, **self.changes, learning_rate=rate)
        return Job(f"{mixing}-seed{seed}-rate{rate:g}", recipe, **ends)

    def sweep(self, outcomes: Outcomes) -> list[Job]:
        """Return the runs that try rates, as far as known to be needed; none of a single rate."""
        if len(self.rates) == 1:
            return []
        first = self.seeds[0]
        return [
            self.job(mixing, first, rate)
            for mixing in self._rows
            for rate in self._tried(mixing, outcomes)
        ]

    def final(self, outcomes: Outcomes) -> list[Job]:
        """Return the runs that are reported, of the rows whose rate is chosen."""
        found = []
        for seed in self.seeds:
            for mixing in self._rows:
                rate = self._chosen(mixing, outcomes)
                if rate is not None:
                    trips = seed == self.seeds[0]
                    found.append(self.job(mixing, seed, rate, final=True, trips=trips))
        return found

    def jobs(self, outcomes: Outcomes) -> list[Job]:
        """Return all runs that are known to be needed, in the order in which they begin."""
        return self.sweep(outcomes) + self.final(outcomes)

    def left(self, outcomes: Outcomes) -> list[Job]:
        """Return those of `jobs` that have not ended."""
        return [job for job in self.jobs(outcomes) if not job.ended(outcomes)]

    def _losses(self, mixing: str, rates: Sequence[float], outcomes: Outcomes) -> list[float]:
        """Return bits/dim of the validation part by rate; inf of one that stopped."""
        names = [self.job(mixing, self.seeds[0], rate).name for rate in rates]
        found = [outcomes[name].validation if name in outcomes else None for name in names]
        return [math.inf if bits is None else bits for bits in found]

    def _tried(self, mixing: str, outcomes: Outcomes) -> list[float]:
        """Return a row's rates, in order: those of the start, widened by what has ended."""
        rates = sorted(self.rates)
        while all(self.job(mixing, self.seeds[0], r).ended(outcomes) for r in rates):
            further = self._further(rates, self._losses(mixing, rates, outcomes))
            if further is None:
                break
            rates = sorted([*rates, further])
        return rates

    @staticmethod
    def _further(rates: Sequence[float], losses: Sequence[float]) -> float | None:
        """Return the rate beyond the best one where that is the outermost; None if it is inside."""
        best = losses.index(min(losses))
        if losses[best] < math.inf and best == len(rates) - 1:
            return next(iter(_larger(rates[-1])), None)
        return _smaller(rates[0])[-1] if best == 0 and _smaller(rates[0]) else None

    def _chosen(self, mixing: str, outcomes: Outcomes) -> float | None:
        """Return the best rate of a sweep that has ended, the least where none ended well."""
        if len(self.rates) == 1:
            return self.rates[0]
        rates = self._tried(mixing, outcomes)
        if not all(self.job(mixing, self.seeds[0], r).ended(outcomes) for r in rates):
            return None
        losses = self._losses(mixing, rates, outcomes)
        return rates[losses.index(min(losses))]
