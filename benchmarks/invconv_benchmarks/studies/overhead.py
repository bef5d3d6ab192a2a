"""What our maps cost beside plain convolutions where these are short, and in calls of Python.

``python -m invconv_benchmarks.studies.overhead`` prints two tables, of one thread and float32.

The first has times as parts of those of `torch.nn.Conv2d`, call by call in turns: emerging
convolutions beside two of 2 x 2 on images that are padded already, exact inverses of the 1x1s
beside a 1x1, the periodic convolution beside a circular 3 x 3, an exponential beside a 3 x 3 that
runs once more than its series has terms. Of two of ours, which the line names, the second takes
PyTorch's part: prepared inverses beside their forwards, and a Glow (L = 2, K = 4, width 32, tiles
of 32 x 32) with each mixing layer beside the same with plain 1x1s. A step is forward and backward,
with gradients set to None before; a Glow's is one of Adamax, too. The ratio is that of the medians.
Each call finds the processor's caches as the other one has left them, as a layer of a network does.
``--only "Glow*"`` measures these lines alone.

The second counts the Python functions that a call enters once its caches are filled. A
comprehension is such a function in Python 3.11.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import invconv as ic
import invconv_torch as it
from invconv_benchmarks.measure import spread, threads, timing
from invconv_benchmarks.measure.calls import python_calls
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.report.tables import new
from invconv_benchmarks.studies.flow_pairs import flow_pairs
from invconv_benchmarks.studies.pairs import SMALL, Pair, pairs, step_of
from invconv_benchmarks.suites.group import as_text
from invconv_conformance import printing

_PASSES = 3
_LEAST, _MOST = 5, 1000  # rounds of a pass


class Timed(NamedTuple):
    """A pair, the median seconds of our call, and the ratio of both calls' medians."""

    pair: Pair
    seconds: float
    ratio: Interval

    @property
    def verdict(self) -> str:
        """Whether the time keeps its limit, "-" where there is none."""
        limit = self.pair.limit
        return "-" if limit is None else self.ratio.verdict(limit)


class Count(NamedTuple):
    """The number of Python functions that a call enters, and its limit."""

    does: str
    calls: int
    limit: int

    @property
    def verdict(self) -> str:
        """Whether the number of calls keeps its limit."""
        return "pass" if self.calls <= self.limit else "miss"


@threads.one()
def compare(jobs: Iterable[Pair], seconds: float) -> list[Timed]:
    """Return our time beside PyTorch's, with one thread.

    Parameters
    ----------
    jobs : iterable of Pair
    seconds : float
        For each call in each of three passes.
    """
    pairs = list(jobs)
    shown = track(pairs, "measuring", console=Console(stderr=True), transient=True)
    samples = [_samples(pair, seconds) for pair in shown]
    between = spread.between_passes(samples)
    return [
        Timed(pair, spread.quantiles(ours)[1], spread.ratio(ours, theirs, between))
        for pair, (ours, theirs) in zip(pairs, samples, strict=True)
    ]


def _samples(pair: Pair, seconds: float) -> tuple[spread.Passes, spread.Passes]:
    """Return the times of both calls, in passes."""
    calls = {"ours": pair.ours, "theirs": pair.theirs}
    with torch.set_grad_enabled(pair.gradients):
        round_seconds = sum(timing.medians(calls, _LEAST).values())
        rounds = min(max(int(2 * seconds / round_seconds), _LEAST), _MOST)
        passes = [timing.samples(calls, rounds) for _ in range(_PASSES)]
    ours, theirs = ([one[name] for one in passes] for name in calls)
    return ours, theirs


@threads.one()
def counts() -> list[Count]:
    """Return how many calls of Python ours take, on a small image."""
    channels, grid = SMALL[1], SMALL[2:]
    x = torch.randn(SMALL)
    y = x.numpy()
    conv = ic.EmergingConv.init(channels, rng=np.random.default_rng(0), like=y)
    prepared = conv.prepare(grid)
    layer, fixed = it.EmergingConv2d(channels), it.EmergingConv2d(channels).eval()
    found = [
        Count("EmergingConv inverse, NumPy", python_calls(lambda: conv.inverse(y)), 140),
        Count("prepared inverse, NumPy", python_calls(lambda: prepared.inverse(y)), 40),
        Count("EmergingConv2d forward", python_calls(lambda: layer(x)), 150),
        Count("EmergingConv2d step", python_calls(step_of(layer, x)), 300),
    ]
    with torch.no_grad():
        calls = python_calls(lambda: fixed.inverse(x))
    return [*found, Count("EmergingConv2d inverse, eval, no_grad", calls, 60)]


def times_table(found: Sequence[Timed]) -> Table:
    """Return a line for each pair."""
    shown = new(
        "one thread, float32: ratio = our time / that of nn.Conv2d\n"
        "(Emerging: two of 2x2, padded before; 1x1: one 1x1; Periodic: a circular 3x3)",
        ("shape", "does"),
        ("us", "ratio", "spread", "limit", "verdict"),
    )
    for one in found:
        shown.add_row(
            as_text(one.pair.shape),
            one.pair.does,
            f"{1e6 * one.seconds:.0f}",
            f"{one.ratio.value:.2f}",
            f"{one.ratio.low:.2f}-{one.ratio.high:.2f}",
            "-" if one.pair.limit is None else f"{one.pair.limit:g}",
            one.verdict,
        )
    return shown


def counts_table(found: Sequence[Count]) -> Table:
    """Return a line for each count."""
    title = f"{as_text(SMALL)}, float32: calls of Python, warm"
    shown = new(title, ("does",), ("calls", "limit", "verdict"))
    for one in found:
        shown.add_row(one.does, str(one.calls), str(one.limit), one.verdict)
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables, and how many limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each call, in each pass")
    parser.add_argument("--only", help='a pattern of what is timed, such as "Glow*"; no counts')
    arguments = parser.parse_args(argv)
    pattern = arguments.only or "*"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        jobs = [p for p in (*pairs(), *flow_pairs()) if fnmatch.fnmatchcase(p.does, pattern)]
        found = compare(jobs, arguments.seconds)
        called = [] if arguments.only else counts()
    console = printing.console()
    for shown in (times_table(found), *([counts_table(called)] if called else [])):
        console.print(shown)
    for name, verdicts in (
        ("times", [one.verdict for one in found]),
        ("calls of Python", [one.verdict for one in called]),
    ):
        said = ", ".join(f"{verdicts.count(v)} {v}" for v in ("pass", "unclear", "miss"))
        console.print(f"{name}: {said}", highlight=False)


if __name__ == "__main__":
    main()
