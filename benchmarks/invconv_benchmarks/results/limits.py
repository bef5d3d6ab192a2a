"""The limits that the inverse must keep, with a verdict on each row that one speaks of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from invconv_benchmarks.contenders.plain import CONV2D, FFT
from invconv_benchmarks.measure import spread
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.results.fits import Fit
from invconv_benchmarks.results.row import TITLES, Row, grouped
from invconv_benchmarks.suites import maps
from invconv_benchmarks.suites.group import LIMIT_SHAPES, Shape, as_text

# inverse / F.conv2d of a 2 x 2 corner with one thread in NumPy, in float32 and float64
_AGAINST_CONV2D: dict[Shape, tuple[float, float]] = {
    (1, 12, 16, 16): (3.0, 3.0),
    (64, 12, 16, 16): (0.8, 0.8),
    (64, 24, 8, 8): (0.6, 0.75),
    (64, 48, 4, 4): (0.8, 0.9),
    (100, 3, 32, 32): (0.4, 0.6),
    (100, 12, 32, 32): (0.85, 0.4),
    (1, 12, 64, 64): (1.0, 1.0),
    (16, 48, 64, 64): (1.3, 0.6),
    (1, 3, 256, 256): (0.6, 0.8),
    (1, 12, 512, 512): (1.1, 0.4),
}
_TIMES = {
    "numpy": 1.0,
    "torch": 1.1,
    "jax": 1.4,
}  # each library's limit is that of NumPy times this
_JAX_CALL = 6.0  # the limit at the first shape, where the overhead of JAX's call dominates
_LARGE = 2**23  # in inputs of fewer bytes the library's own memory dominates


@dataclass(frozen=True)
class Verdict:
    """A limit, and how a row compares with it.

    Attributes
    ----------
    limit, what : str
        The limit, and the row it was measured on.
    value, low, high : float
        With the spread that the run states.
    bound : float
    verdict : {"pass", "unclear", "miss"}
        "pass" where the whole spread keeps the limit, "miss" where none of it does.
    """

    limit: str
    what: str
    value: float
    low: float
    high: float
    bound: float
    verdict: str


def verdicts(rows: Sequence[Row], exponents: Sequence[Fit]) -> list[Verdict]:
    """Return the verdict of every limit on all that was measured."""
    groups = [g for g in grouped(rows) if g[0].suite == "inverse"]
    found = [v for group in groups for check in _CHECKS for v in check(group)]
    found += _growth(exponents)
    order = list(dict.fromkeys(v.limit for v in found))
    return sorted(found, key=lambda v: order.index(v.limit))


def _verdict(limit: str, row: Row, found: Interval, bound: float, least: bool = False) -> Verdict:
    """Judge an interval by a bound that is not to be exceeded, or with ``least`` to be reached."""
    what = (
        f"{row.library} {row.map} {as_text(row.shape)} "
        f"{row.dtype.replace('float', 'f')} {row.threads} thr"
    )
    if row.device != "cpu":
        what += f", {row.device} {row.mode}"
    verdict = found.verdict(bound, least=least)
    return Verdict(limit, what, found.value, found.low, found.high, bound, verdict)


def _ratio(row: Row, other: Row) -> Interval:
    return spread.ratio(row.passes, other.passes, row.between)


def _ours(group: list[Row], does: str) -> list[Row]:
    return [r for r in group if r.role == "ours" and r.does == does and r.passes]


def _bound(row: Row) -> float | None:
    """Return the limit of a corner's inverse ÷ F.conv2d, None where there is none."""
    shape, library = row.shape, row.library
    dtype = {"float32": 0, "float64": 1}.get(row.dtype)
    if shape not in _AGAINST_CONV2D or library not in _TIMES or dtype is None:
        return None
    if library == "jax" and shape == LIMIT_SHAPES[0]:
        return _JAX_CALL
    return _TIMES[library] * _AGAINST_CONV2D[shape][dtype]


def _inverses(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse"):
        alone = row.map == "corner 2" and row.threads == 1 and row.device == "cpu"
        bound, found = _bound(row), row.yardstick
        if alone and bound and found:
            name = f"{TITLES[row.library]}, one thread: inverse / {CONV2D}"
            yield _verdict(name, row, found, bound)


def _emerging(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse") if group[0].map.startswith("emerging") else []:
        forward = [r for r in _ours(group, "forward") if r.place == row.place]
        if forward and row.library == "numpy":
            found = _ratio(row, forward[0])
            yield _verdict("emerging pair, batched: inverse / forward, NumPy", row, found, 1.5)


def _periodic(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse") if group[0].map.startswith("periodic") else []:
        for other in group:
            if other.contender == FFT and other.passes and other.place == row.place:
                name = "periodic inverse, prepared / FFT forward, prepared"
                yield _verdict(name, row, _ratio(row, other), 1.1)


def _qr(group: list[Row]) -> Iterator[Verdict]:
    peers = [r for r in group if r.contender == "reflections" and r.passes]
    for row in _ours(group, "matrix") if peers else []:
        found = _ratio(peers[0], row)
        yield _verdict("QR, form W: reflections / ours, at least", row, found, 5.0, least=True)


def _weight_plan(group: list[Row]) -> Iterator[Verdict]:
    """Judge the time that new weights add to an inverse, in milliseconds."""
    for row in _ours(group, "new weights"):
        prepared = [r for r in _ours(group, "same weights") if r.place == row.place]
        if row.library != "numpy" or not prepared:
            continue
        seconds = spread.difference(row.passes, prepared[0].passes)
        found = Interval(*(1e3 * s for s in astuple(seconds)))
        yield _verdict("weight plan, milliseconds", row, found, 0.15)


def _memory(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse"):
        size = maps.input_bytes(row.group)
        if row.memory is None or size < _LARGE or not row.map.startswith("corner"):
            continue
        for call, bound in (("first", 3.0), ("second", 1.3)):
            peak = getattr(row.memory, call)
            if peak is not None:
                found = Interval(peak / size, peak / size, peak / size)
                yield _verdict(f"peak memory of a {call} call / the input", row, found, bound)


def _residuals(group: list[Row]) -> Iterator[Verdict]:
    for row in _ours(group, "inverse"):
        kind, _, size = row.map.partition(" ")
        if row.residual is None or kind not in ("corner", "emerging"):
            continue
        k = (int(size) + 1) // 2 if kind == "emerging" else int(size)
        unit = row.shape[1] * k**2 * float(np.finfo(row.dtype).eps)
        found = Interval(*[row.residual / unit] * 3)
        yield _verdict("backward error / (C k k eps)", row, found, 1.0)


_CHECKS: tuple[Callable[[list[Row]], Iterator[Verdict]], ...] = (
    _inverses,
    _emerging,
    _periodic,
    _qr,
    _weight_plan,
    _memory,
    _residuals,
)
_GROWTH = {"batch": 1.1, "pixels": 1.1, "channels": 2.1}


def _growth(exponents: Sequence[Fit]) -> list[Verdict]:
    found = []
    for fit in exponents:
        if fit.role != "ours" or fit.axis not in _GROWTH or fit.range != "all":
            continue
        value, error, bound = fit.value, fit.error, _GROWTH[fit.axis]
        what = f"{fit.library} {fit.does}, {fit.start:g} to {fit.stop:g}"
        limit = f"exponent of cost in {fit.axis}"
        stated = Interval(value, value - error, value + error)
        found.append(
            Verdict(limit, what, value, stated.low, stated.high, bound, stated.verdict(bound))
        )
    return found
