"""Statistics of samples: quantiles, ratios with their spread, fitted exponents."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Passes = Sequence[Sequence[float]]

LEAST_SIZES = 5  # the least number of sizes that an exponent is fitted to
_RESAMPLES = 999
_LEVEL = 0.95
_WIDTH = 3  # standard deviations: results are compared in hundreds of rows at once


@dataclass(frozen=True)
class Interval:
    """A value and the interval that the report states for it."""

    value: float
    low: float
    high: float

    def verdict(self, bound: float, *, least: bool = False) -> str:
        """Judge it by a bound not to be exceeded, or with ``least`` to be reached.

        "pass" is where all of the interval keeps the bound, "miss" where none does, else "unclear".
        """
        low, high = (-self.high, -self.low) if least else (self.low, self.high)
        bound = -bound if least else bound
        return "pass" if high <= bound else "miss" if low > bound else "unclear"

    def inverse(self) -> "Interval":
        """Return 1 / it."""
        return Interval(1 / self.value, 1 / self.high, 1 / self.low)


def quantiles(passes: Passes) -> tuple[float, float, float]:
    """Return p10, median and p90 of all samples."""
    p10, median, p90 = np.quantile(np.concatenate(passes), [0.1, 0.5, 0.9])
    return float(p10), float(median), float(p90)


def between_passes(pairs: Iterable[tuple[Passes, Passes]]) -> float:
    """Return the standard deviation of log ratios of medians from pass to pass, of many ratios."""
    squares, freedom = 0.0, 0
    for ours, theirs in pairs:
        logs = np.log([np.median(a) / np.median(b) for a, b in _both(ours, theirs)])
        squares += float(((logs - logs.mean()) ** 2).sum())
        freedom += len(logs) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0


def ratio(ours: Passes, theirs: Passes, between: float = 0.0) -> Interval:
    """Return the ratio of medians.

    The interval spans the bootstrap intervals (95 %, of pairs of samples of one round) of each pass
    and of all together, and three times what passes differ by, which `between_passes` tells.
    """
    pairs = [np.asarray(list(zip(*pair, strict=False))).T for pair in _both(ours, theirs)]
    ends = [_bootstrap(a, b) for a, b in pairs]
    a, b = np.concatenate(pairs, axis=1)
    if len(pairs) > 1:
        ends.append(_bootstrap(a, b))
    value = float(np.median(a) / np.median(b))
    ends.append((value * math.exp(-_WIDTH * between), value * math.exp(_WIDTH * between)))
    lows, highs = zip(*ends, strict=True)
    return Interval(value, min(value, *lows), max(value, *highs))


def _both(ours: Passes, theirs: Passes) -> list[tuple[Any, Any]]:
    """Return the samples of passes in which neither failed; of all as of one, if there is none."""
    both = [pair for pair in zip(ours, theirs, strict=False) if all(pair)]
    return both or [(np.concatenate(ours), np.concatenate(theirs))]


def _bootstrap(a: Any, b: Any) -> tuple[float, float]:
    if len(a) < 3:
        each = a / b
        return float(each.min()), float(each.max())

    def statistic(x: Any, y: Any, axis: int = -1) -> Any:
        return np.median(x, axis=axis) / np.median(y, axis=axis)

    settings: dict[str, Any] = {"paired": True, "vectorized": True, "method": "percentile"}
    settings |= {"n_resamples": _RESAMPLES, "confidence_level": _LEVEL}
    rng = np.random.default_rng(0)
    interval = stats.bootstrap((a, b), statistic, rng=rng, **settings).confidence_interval
    return float(interval.low), float(interval.high)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> Interval:
    """Fit seconds = c size^value by least squares of the logarithms, with a 95 % interval."""
    fit = stats.linregress(np.log(sizes), np.log(seconds))
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, len(sizes) - 2)) * float(fit.stderr)
    return Interval(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)
