"""Times of calls that take turns, so that changes of the machine's speed affect all alike."""

import math
from dataclasses import dataclass, field
from typing import Any

from invconv_benchmarks.measure.contender import Call, Contender, wait
from invconv_benchmarks.measure.gpu import mean_seconds
from invconv_benchmarks.measure.timing import seconds as seconds_of

_SAMPLE = 1e-3  # a sample lasts at least so many seconds: short calls are repeated
_LEAST, _MOST = 5, 40  # rounds
_LEAST_LONG, _MOST_ALTERNATING = 3, 500  # of one call each
_LONG = 0.1  # a call of fewer seconds is preceded by one that fills the cache


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
            self.plan = seconds_of(self._build)
            self.first = seconds_of(self._run)
            self.estimate = seconds_of(self._run)
            if self.estimate < _LONG:  # the least of three: a busy machine interrupts some
                self.estimate = min(self.estimate, *(seconds_of(self._run) for _ in range(2)))
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
