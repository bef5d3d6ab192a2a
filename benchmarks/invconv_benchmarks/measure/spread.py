"""Statistics of samples: quantiles, ratios and differences with their spread, fitted exponents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Passes = Sequence[Sequence[float]]
Compare = Callable[[Any, Any], Any]

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

    @property
    def spread(self) -> float:
        """Half the interval's width, as a part of the value."""
        return (self.high - self.low) / 2 / self.value

    def verdict(self, bound: float, *, least: bool = False) -> str:
        """Judge it by a bound that is not to be exceeded, or with ``least`` to be reached.

        Returns
        -------
        {"pass", "unclear", "miss"}
            "pass" where all of the interval keeps the bound, "miss" where none of it does.
        """
        low, high = (-self.high, -self.low) if least else (self.low, self.high)
        bound = -bound if least else bound
        return "pass" if high <= bound else "miss" if low > bound else "unclear"

    def overlaps(self, other: Interval) -> bool:
        """Tell whether the intervals have a value in common."""
        return self.low <= other.high and other.low <= self.high


def quantiles(passes: Passes) -> tuple[float, float, float]:
    """Return p10, median and p90 of all samples."""
    p10, median, p90 = np.quantile(np.concatenate(passes), [0.1, 0.5, 0.9])
    return float(p10), float(median), float(p90)


def between_passes(pairs: Iterable[tuple[Passes, Passes]]) -> float:
    """Return the standard deviation, from pass to pass, of the logarithm of a ratio of medians.

    One ratio has two or three passes, too few to tell; it is pooled over many.
    """
    squares, freedom = 0.0, 0
    for ours, theirs in pairs:
        medians = [(np.median(a), np.median(b)) for a, b in zip(ours, theirs, strict=False)]
        logs = np.log([a / b for a, b in medians])
        squares += float(((logs - logs.mean()) ** 2).sum())
        freedom += len(logs) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0


def ratio(ours: Passes, theirs: Passes, between: float = 0.0) -> Interval:
    """Return the ratio of medians.

    Within a pass the samples of a round belong together, and rounds are drawn anew a thousand times
    (a 95 % bootstrap interval). Passes run in processes of their own, minutes apart. The interval
    spans those of all passes, that of all rounds together, and three times what passes differ by.

    Parameters
    ----------
    ours, theirs : sequence of passes, each a sequence of seconds, one a round
    between : float
        From `between_passes`.
    """
    value, ends = _spans(ours, theirs, np.divide)
    ends.append((value * math.exp(-_WIDTH * between), value * math.exp(_WIDTH * between)))
    return _around(value, ends)


def difference(ours: Passes, theirs: Passes) -> Interval:
    """Return the difference of medians; its interval is found as that of `ratio`.

    What passes differ by is told from these passes alone.
    """
    value, ends = _spans(ours, theirs, np.subtract)
    each = [np.median(a) - np.median(b) for a, b in zip(ours, theirs, strict=False) if a and b]
    between = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
    return _around(value, [*ends, (value - _WIDTH * between, value + _WIDTH * between)])


def _spans(ours: Passes, theirs: Passes, of: Compare) -> tuple[float, list[tuple[float, float]]]:
    """Compare medians; return what was found, and an interval of each pass and of all together."""
    pairs = [_paired(a, b) for a, b in zip(ours, theirs, strict=False) if a and b]
    if not pairs:
        raise ValueError("expected at least one sample of each")
    ends = [_bootstrap(a, b, of) for a, b in pairs]
    a, b = (np.concatenate([pair[i] for pair in pairs]) for i in range(2))
    if len(pairs) > 1:
        ends.append(_bootstrap(a, b, of))
    return float(of(np.median(a), np.median(b))), ends


def _around(value: float, ends: Sequence[tuple[float, float]]) -> Interval:
    lows, highs = zip(*ends, strict=True)
    return Interval(value, min(value, *lows), max(value, *highs))


def _paired(a: Sequence[float], b: Sequence[float]) -> tuple[Any, Any]:
    count = min(len(a), len(b))
    return np.asarray(a[:count]), np.asarray(b[:count])


def _bootstrap(a: Any, b: Any, of: Compare) -> tuple[float, float]:
    if len(a) < 3:
        each = of(a, b)
        return float(each.min()), float(each.max())

    def statistic(x: Any, y: Any, axis: int = -1) -> Any:
        return of(np.median(x, axis=axis), np.median(y, axis=axis))

    interval = stats.bootstrap(
        (a, b),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        confidence_level=_LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Exponent:
    """A power law seconds = c size^value, fitted between two sizes.

    Attributes
    ----------
    value, error : float
        The exponent, and half its 95 % interval (of the fit alone).
    start, stop : float
        The smallest and largest size.
    points : int
    """

    value: float
    error: float
    start: float
    stop: float
    points: int


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> Exponent:
    """Fit a power law by least squares of the logarithms.

    Raises
    ------
    ValueError
        For fewer than `LEAST_SIZES`, whose interval is so wide that it excludes nothing.
    """
    if len(sizes) < LEAST_SIZES:
        raise ValueError(f"expected at least {LEAST_SIZES} sizes, got {len(sizes)}")
    fit = stats.linregress(np.log(sizes), np.log(seconds))
    width = float(stats.t.ppf(0.5 + _LEVEL / 2, len(sizes) - 2))
    return Exponent(float(fit.slope), width * float(fit.stderr), min(sizes), max(sizes), len(sizes))
