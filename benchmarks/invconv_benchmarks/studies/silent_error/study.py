"""Look for an inverse that is wrong and says nothing.

Operators are judged as `prepare` and `diagnose` do, and compared with dense matrices in extended
precision: the constructions that were silent once, random operators of thirteen families, chains of
2 to 8 steps, large grids in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from invconv_benchmarks.measure.spread import exactly
from invconv_benchmarks.results.limits import Verdict, judged
from invconv_benchmarks.studies.silent_error import drawing
from invconv_benchmarks.studies.silent_error.comparison import (
    CLOSE,
    FAR,
    LOST,
    Compared,
    compare_all,
)
from invconv_benchmarks.studies.silent_error.constructions import constructions

_FAMILY, _CHAINS, _LARGE = 200, 200, 10
_QUICK = 10  # of each, one in so many
_MOST_FALSE = 0.01


def measure(quick: bool, folder: Path) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge constructions and random operators; ``quick`` takes a tenth of these."""
    share = _QUICK if quick else 1
    constructed = compare_all(constructions(), "constructions")
    drawn = compare_all(drawing.random_operators(_FAMILY // share), "random operators")
    chains, large = drawing.chains(_CHAINS // share), drawing.large_grids(_LARGE // share)
    others = compare_all([*chains, *large], "chains and large grids")
    false = sum(one.false_alarm for one in drawn) / len(drawn)
    verdicts = [v for one in constructed for v in _verdicts(_construction(one), [one])]
    for name, some in groupby([*drawn, *others], key=lambda one: one.name):
        several = list(some)
        verdicts += _verdicts(_family(name, several), several)
    title = "share that warns though three digits are left"
    verdicts.append(judged(title, f"{len(drawn)} random operators", exactly(false), _MOST_FALSE))
    order = list(dict.fromkeys(v.limit for v in verdicts))
    return sorted(verdicts, key=lambda v: order.index(v.limit)), {}


def _verdicts(what: str, compared: Sequence[Compared]) -> list[Verdict]:
    silent = sum(one.silent for one in compared)
    most = max(one.hopeful for one in compared)
    return [
        judged("inverses of fewer than 1.5 digits that are silent", what, exactly(silent), 0),
        judged("digits said beyond those left, at most", what, exactly(most), FAR),
    ]


def _construction(one: Compared) -> str:
    condition = f"condition {one.conv.condition(one.shape):.2g}"
    warns = "warns" if one.inverse_warns else "is silent"
    return f"{one.name}: {condition}, {one.said:.1f} said, {one.left:.1f} left, {warns}"


def _family(name: str, compared: Sequence[Compared]) -> str:
    lost = sum(one.left < LOST for one in compared)
    close = sum(abs(one.hopeful) <= CLOSE for one in compared)
    return (
        f"{name}: of {len(compared)}, {lost} have fewer than two digits, {close} are said "
        "within half a digit"
    )
