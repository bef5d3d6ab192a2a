"""The limits that we set ourselves, with a verdict on each row that one speaks of."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from invconv_benchmarks.measure import spread
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.results.row import TITLES, Key, Row, grouped
from invconv_benchmarks.suites.groups import AGAINST_CONV2D, CONV2D, FFT, LIMIT_SHAPES, as_text

_TIMES = {"numpy": 1.0, "torch": 1.1, "jax": 1.4}  # a library's limits are NumPy's times this
_JAX_CALL = 6.0  # the limit at the first shape, where the overhead of JAX's call dominates
_LONG, _GAIN, _EQUAL = 1e-3, 1.6, 0.95  # seconds of one thread, from which a second has to gain
_CHECKS = {"check": (3, 0.05), "diagnosis": (6, 0.2)}  # solves, and seconds
_GROWTH = {"batch": 1.1, "pixels": 1.1, "channels": 2.1, "taps": 1.1}


@dataclass(frozen=True)
class Verdict:
    """A limit, and how a measurement compares with it."""

    limit: str
    what: str  # it was measured on
    value: float
    low: float  # to high: the spread that the run states
    high: float
    bound: float
    verdict: str  # "pass" where the whole spread keeps it, "miss" where none does, or "unclear"


def judged(
    limit: str, what: str, measured: Interval | float, bound: float, *, least: bool = False
) -> Verdict:
    """Judge a measurement by a bound not to be exceeded, or with ``least`` to be reached."""
    measured = measured if isinstance(measured, Interval) else Interval(*[measured] * 3)
    verdict = measured.verdict(bound, least=least)
    return Verdict(limit, what, measured.value, measured.low, measured.high, bound, verdict)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Return the verdict of every limit on all that was measured."""
    judgements = [v for group in grouped(rows) for v in _SUITES.get(group[0].suite, _stated)(group)]
    return [*judgements, *_growth(rows)]


def _what(row: Row) -> str:
    device = "" if row.device == "cpu" else f", {row.device} {row.mode}"
    return f"{row.library} {row.map} {' '.join(row.words)} thr{device}"


def _ours(group: list[Row], does: str) -> list[Row]:
    return [r for r in group if r.role == "ours" and r.does == does and r.passes]


def _inverse(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse"):
        kind, _, size = row.map.partition(" ")
        what, bound = _what(row), _against_conv2d(row)
        if bound and row.yardstick:
            name = f"{TITLES[row.library]}, one thread: inverse / {CONV2D}"
            yield judged(name, what, row.yardstick, bound)
        for other in (r for r in group if r.passes and r.place == row.place):
            if kind == "emerging" and row.library == "numpy" and other in _ours(group, "forward"):
                name = "emerging pair, batched: inverse / forward, NumPy"
                yield judged(name, what, row.ratio_to(other), 1.5)
            if kind == "periodic" and other.contender == FFT:
                name = "periodic inverse, prepared / FFT forward, prepared"
                yield judged(name, what, row.ratio_to(other), 1.1)
        if row.residual is not None and kind in ("corner", "emerging"):
            k = (int(size) + 1) // 2 if kind == "emerging" else int(size)
            unit = row.shape[1] * k**2 * float(np.finfo(row.dtype).eps)
            yield judged("backward error / (C k k eps)", what, row.residual / unit, 1.0)


def _against_conv2d(row: Row) -> float | None:
    """Return the limit of a corner's inverse ÷ F.conv2d, None where there is none."""
    both = AGAINST_CONV2D.get(row.shape)
    alone = row.map == "corner 2" and row.threads == 1 and row.device == "cpu"
    if both is None or not alone or row.library not in _TIMES:
        return None
    if row.library == "jax" and row.shape == LIMIT_SHAPES[0]:
        return _JAX_CALL
    return _TIMES[row.library] * both[row.dtype == "float64"]


def _odd(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse"):
        if row.limit is not None and row.yardstick and row.library in _TIMES:
            name = f"odd shapes, {TITLES[row.library]}: inverse / yardstick"
            yield judged(name, _what(row), row.yardstick, _TIMES[row.library] * row.limit)


def _stated(group: list[Row]) -> Iterator[Verdict]:
    for row in group:
        if row.role == "ours" and row.limit is not None and row.ratio is not None:
            yield judged(f"{row.suite}: time / {row.against}", _what(row), row.ratio, row.limit)


def _threads(group: list[Row]) -> Iterator[Verdict]:
    for row in group:
        if row.role == "ours" and row.ratio is not None:
            (one,) = (r for r in group if r.role == "plain" and r.place == row.place)
            gain, long = row.ratio.inverse(), one.seconds > _LONG
            name = f"two threads: gain{' of solves over 1 ms' * long}, at least"
            yield judged(name, _what(row), gain, _GAIN if long else _EQUAL, least=True)


def _checks(group: list[Row]) -> Iterator[Verdict]:
    least = {row.does: min(itertools.chain(*row.passes)) for row in group if row.passes}
    for does, (solves, rest) in _CHECKS.items():
        if does in least and "solve" in least:
            name = f"least time of a {does} / ({solves} solves and {1e3 * rest:g} ms)"
            share = least[does] / (solves * least["solve"] + rest)
            row = next(r for r in group if r.does == does)
            what = f"{_what(row)}: {1e3 * least['solve']:.3g} ms a solve"
            yield judged(name, what, share, 1.0)


_SUITES = {"inverse": _inverse, "odd": _odd, "threads": _threads, "checks": _checks}


def _growth(rows: Sequence[Row]) -> Iterator[Verdict]:
    series: dict[Key, list[Row]] = {}
    for row in rows:
        if row.axis and row.role == "ours" and row.passes:
            key = row.axis, len(row.shape), row.does, *row.place, row.dtype, row.threads
            series.setdefault(key, []).append(row)
    for (axis, ndim, does, *_), points in series.items():
        points.sort(key=_size)
        if len(points) < spread.LEAST_SIZES:
            continue
        exponent = spread.exponent([_size(p) for p in points], [p.seconds for p in points])
        first, last = points[0], points[-1]
        what = f"{first.library} {does} {ndim - 2}-D {' '.join(first.words[1:])} thr"
        what += f", {first.map} {as_text(first.shape)} to {last.map} {as_text(last.shape)}"
        yield judged(f"exponent of cost in {axis}", what, exponent, _GROWTH[axis])


def _size(row: Row) -> float:
    grid = row.shape[2:]
    taps = int(row.map.partition(" ")[2] or 1) ** len(grid)
    sizes = {"pixels": math.prod(grid), "batch": row.shape[0], "channels": row.shape[1]}
    return float((sizes | {"taps": taps})[row.axis])
