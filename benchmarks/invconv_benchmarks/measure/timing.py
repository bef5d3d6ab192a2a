"""Times of calls that take turns, so that changes of the machine's speed affect all alike.

The clock is the wall's or another, and on CUDA devices their own, which has not yet run on a GPU.
Statistics of samples are quantiles, ratios with their spread, fitted exponents.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from invconv.kernels.cpu import threads
from invconv_conformance.libraries import Target

Passes = Sequence[Sequence[float]]
Floats = np.ndarray[Any, Any]
Call = Callable[[], Any]

_SAMPLE = 1e-3  # a sample lasts at least so many seconds: short calls are repeated
_LEAST, _MOST = 5, 40  # rounds
_LEAST_LONG, _MOST_ALTERNATING = 3, 500  # of one call each
_LONG = 0.1  # a call of fewer seconds is preceded by one that fills the cache
LEAST_SIZES = 5  # the least number of sizes that an exponent is fitted to
_RESAMPLES, _LEVEL = 999, 0.95  # of intervals
_WIDTH = 3  # standard deviations: results are compared in hundreds of rows at once


def seconds(call: Call, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the time of a call, which ends when what it computes is there."""
    start = clock()
    call()
    return clock() - start


def medians(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Return the median time of each call; they take turns, so that all meet the same load.

    Each is called once before, which compiles, plans and fills caches.
    """
    for call in calls.values():
        call()
    return {name: statistics.median(times) for name, times in samples(calls, rounds).items()}


def samples(
    calls: Mapping[str, Call],
    rounds: int,
    *,
    warm: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return so many times of each call; they take turns, one call each.

    Calls of fewer seconds than ``warm`` are preceded by one that does not count: the cache holds
    what others left.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken = seconds(call, clock)
            times[name].append(seconds(call, clock) if taken < warm else taken)
    return times


@dataclass(frozen=True)
class Contender:
    """A call to time."""

    name: str
    role: str  # "ours"; "plain", what ours is compared with; "peer", what else a user could run
    does: str  # which of the group's ``does``
    target: Target
    build: Callable[[], Call]  # plans and returns the call
    before: Call = lambda: None  # is called when its turn comes, before the clock starts


def wait(target: Target, result: Any) -> None:
    """Wait until the arrays that a call returned are computed."""
    for part in result if isinstance(result, (tuple, list)) else (result,):
        target.library.synchronise(part)


def set_threads(library: str, count: int) -> None:
    """Set how many threads a library's solves use, where that can be set in a running process."""
    if library == "torch":
        import torch

        torch.set_num_threads(count)
    elif library == "numpy":
        threads.set_num_threads(count)


def mean_seconds(target: Target, call: Call, count: int) -> float:
    """Return the mean time of so many calls: on CUDA devices, of the device's own clock."""
    if target.library.name == "cupy":
        from cupyx.profiler import benchmark

        return float(benchmark(call, n_repeat=count, n_warmup=0).gpu_times.mean())
    if target.on_cuda and target.library.name == "torch":
        import torch

        with torch.cuda.device(target.device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(count):
                call()
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / count
    begin = time.perf_counter()
    for _ in range(count):
        wait(target, call())  # wait for every call: JAX would run several at a time
    return (time.perf_counter() - begin) / count


@dataclass
class Timing:
    """A contender in one pass: the seconds that it takes, or its error."""

    contender: Contender
    alternating: bool = False
    plan: float | None = None  # to factor, copy and choose
    first: float | None = None  # of the call that may compile and makes workspaces
    calls: int = 1  # that a sample is the mean of
    samples: list[float] = field(default_factory=list)  # one per round
    error: str = ""
    result: Any = None  # of a call
    call: Call = lambda: None
    estimate: float = 0.0  # of a call

    def start(self) -> None:
        """Plan, make the first calls, and find out how many calls a sample needs."""
        try:
            self.contender.before()
            self.plan = seconds(self._build)
            self.first = seconds(self._run)
            self.estimate = seconds(self._run)
            if self.estimate < _LONG:  # the least of three: a busy machine interrupts some
                self.estimate = min(self.estimate, *(seconds(self._run) for _ in range(2)))
        except Exception as error:  # any error of a library; the row reports it
            lines = str(error).strip().splitlines() or [""]
            self.error = f"{type(error).__name__}: {lines[0][:200]}"
        if not self.alternating:
            self.calls = min(1000, math.ceil(_SAMPLE / max(self.estimate, 1e-7)))

    def rounds(self, share: float) -> int:
        """Return how many rounds take so many seconds."""
        if self.alternating:
            least = _LEAST if self.estimate < _LONG else _LEAST_LONG
            return int(min(_MOST_ALTERNATING, max(least, share / max(self.estimate, 1e-9))))
        if self.estimate > 4 * share:
            return 2  # this peer is so slow that its noise does not matter
        cost = self.estimate * (self.calls + (self.estimate < _LONG))
        return int(min(_MOST, max(_LEAST, share / max(cost, 1e-9))))

    def sample(self) -> float:
        """Return the mean time of a call, after one that is not counted where calls are short."""
        self.contender.before()
        if self.estimate < _LONG and not self.alternating:
            self._run()  # the cache holds the data of other contenders
        return mean_seconds(self.contender.target, self.call, self.calls)

    def _build(self) -> None:
        self.call = self.contender.build()

    def _run(self) -> None:
        self.result = self.call()
        wait(self.contender.target, self.result)


def measure(
    contenders: list[Contender], seconds: float, *, alternating: bool = False
) -> list[Timing]:
    """Return the times of contenders that take turns, so many seconds for each of them.

    With ``alternating`` a turn is one call, and all have as many: each finds the processor's caches
    as the others left them, as a layer of a network does.
    """
    timings = [Timing(c, alternating) for c in contenders]
    for timing in timings:
        timing.start()
    ready = [t for t in timings if not t.error]
    rounds = [t.rounds(seconds) for t in ready]
    if alternating:
        rounds = [min(rounds, default=0)] * len(ready)
    for turn in range(max(rounds, default=0)):
        for timing, most in zip(ready, rounds, strict=True):
            if turn < most:
                timing.samples.append(timing.sample())
    return timings


@dataclass(frozen=True)
class Interval:
    """A value and the interval that the report states for it."""

    value: float
    low: float
    high: float

    def inverse(self) -> "Interval":
        """Return 1 / it."""
        return Interval(1 / self.value, 1 / self.high, 1 / self.low)


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

    settings: dict[str, Any] = {"paired": True, "method": "percentile", "confidence_level": _LEVEL}
    settings |= {"n_resamples": _RESAMPLES, "rng": np.random.default_rng(0)}
    interval = stats.bootstrap((a, b), statistic, **settings).confidence_interval
    return float(interval.low), float(interval.high)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> Interval:
    """Fit seconds = c size^value by least squares of the logarithms, with a 95 % interval."""
    fit = stats.linregress(np.log(sizes), np.log(seconds))
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, len(sizes) - 2)) * float(fit.stderr)
    return Interval(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)
