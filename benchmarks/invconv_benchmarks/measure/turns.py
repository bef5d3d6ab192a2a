"""Times of calls that take turns, so that changes of the machine's speed affect all alike."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from invconv_benchmarks.measure.contender import Call, Contender, wait
from invconv_benchmarks.measure.gpu import clock
from invconv_benchmarks.measure.timing import seconds as seconds_of

_SAMPLE = 1e-3  # a sample lasts at least so many seconds: short calls are repeated
_LEAST, _MOST = 5, 40  # rounds
_LONG = 0.1  # a call of fewer seconds is preceded by one that fills the cache


@dataclass
class Timing:
    """The seconds that a contender took in one pass.

    Attributes
    ----------
    plan : float
        To plan: factor, copy, choose.
    first : float
        The first call, which may compile and makes workspaces.
    calls : int
        How many calls a sample is the mean of.
    samples : list of float
        One a round.
    error : str
        What went wrong, instead of all that.
    """

    plan: float = math.nan
    first: float = math.nan
    calls: int = 1
    samples: list[float] = field(default_factory=list)
    error: str = ""


@dataclass
class _Runner:
    contender: Contender
    timing: Timing
    call: Call | None = None
    estimate: float = 0.0


def measure(contenders: list[Contender], seconds: float) -> list[Timing]:
    """Return the times of contenders that take turns for about so many seconds."""
    runners = [_Runner(c, Timing(error=c.absent)) for c in contenders]
    for runner in runners:
        if not runner.timing.error:
            _start(runner)
    ready = [r for r in runners if r.call is not None]
    share = seconds / max(1, len(ready))
    rounds = {id(r): _rounds(r, share) for r in ready}
    for turn in range(max(rounds.values(), default=0)):
        for runner in ready:
            if turn < rounds[id(runner)]:
                runner.timing.samples.append(_sample(runner))
    return [r.timing for r in runners]


def _rounds(runner: _Runner, share: float) -> int:
    cost = runner.estimate * (runner.timing.calls + (runner.estimate < _LONG))
    if runner.estimate > 4 * share:
        return 2  # this peer is so slow that its noise does not matter
    return int(min(_MOST, max(_LEAST, share / max(cost, 1e-9))))


def _start(runner: _Runner) -> None:
    """Plan, make the first calls, and find out how many calls a sample needs."""
    target, timing = runner.contender.target, runner.timing
    try:
        _set(runner.contender)
        start = time.perf_counter()
        call = runner.contender.build()
        timing.plan = time.perf_counter() - start
        timing.first = seconds_of(lambda: wait(target, call()))
        runner.estimate = seconds_of(lambda: wait(target, call()))
        if runner.estimate < _LONG:
            runner.estimate = seconds_of(lambda: wait(target, call()))
    except Exception as error:  # any error of a library; the row reports it
        lines = str(error).strip().splitlines() or [""]
        timing.error = f"{type(error).__name__}: {lines[0][:200]}"
        return
    timing.calls = max(1, min(1000, math.ceil(_SAMPLE / max(runner.estimate, 1e-7))))
    runner.call = call


def _sample(runner: _Runner) -> float:
    """Return the mean time of a call, after one that is not counted where calls are short."""
    target, call = runner.contender.target, runner.call
    assert call is not None
    _set(runner.contender)
    if runner.estimate < _LONG:
        wait(target, call())  # the cache holds the data of other contenders
    return clock(target)(call, runner.timing.calls)


def _set(contender: Contender) -> None:
    """Make the settings that a contender needs, as its turn comes."""
    if contender.before is not None:
        contender.before()
