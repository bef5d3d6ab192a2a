"""A row of a result: the measurements of a contender, and its ratios to others of its group."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from invconv_benchmarks.measure import spread
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.measure.timing import Contender
from invconv_benchmarks.suites.groups import YARDSTICKS, Group, as_text
from invconv_conformance.libraries.table import LIBRARIES

Key = tuple[Any, ...]

TITLES = {library.name: library.title for library in LIBRARIES}


@dataclass
class Row:
    """A contender of a group: what of the `Group` and the `Contender` names it, and its times."""

    suite: str
    map: str
    shape: tuple[int, ...]
    axis: str
    dtype: str
    limit: float | None
    threads: int
    contender: str
    role: str
    does: str
    library: str
    device: str
    mode: str
    plan: float | None = None  # seconds of the first pass, to plan
    first: float | None = None  # and for the first call
    calls: int = 1  # that a sample is the mean of
    error: str = ""
    passes: list[list[float]] = field(
        default_factory=list
    )  # of samples in seconds; a failed one is empty
    residual: float | None = None  # ||K x - y|| / (||x|| + ||y||) of an inverse
    p10: float | None = None  # quantiles of all samples
    median: float | None = None
    p90: float | None = None
    against: str | None = None  # the fastest plain contender of the same library
    ratio: Interval | None = None  # of the medians, to that one
    between: float = 0.0  # standard deviation of the ratio's logarithm from pass to pass
    yardstick: Interval | None = None  # ratio of the medians to the group's yardstick

    @property
    def key(self) -> Key:
        """The attributes that identify a row within a result."""
        return (*self.turns, self.contender, self.does, *self.place)

    @property
    def turns(self) -> Key:
        """The attributes that rows measured in turns have in common."""
        return self.suite, self.map, self.shape, self.axis, self.dtype, self.threads

    @property
    def place(self) -> tuple[str, str, str]:
        """Library, device and mode."""
        return self.library, self.device, self.mode

    @property
    def words(self) -> tuple[str, str, str]:
        """The shape, the dtype and the number of threads, for a table."""
        threads = 2 if (self.suite, self.role) == ("threads", "ours") else self.threads
        return as_text(self.shape), self.dtype.replace("float", "f"), str(threads)

    @property
    def seconds(self) -> float:
        """The median of a row that was measured."""
        assert self.median is not None
        return self.median

    def ratio_to(self, other: Self) -> Interval:
        """Return the ratio of medians to another row of the group."""
        return spread.ratio(self.passes, other.passes, self.between)


def row_of(group: Group, contender: Contender | None, threads: int, **measured: Any) -> Row:
    """Return the measured row of a contender, or without one that of a whole group."""
    labels = ("all", "ours", "all", "", "", "")
    if contender is not None:
        there = contender.target.library.name, contender.target.device, contender.target.mode
        labels = (contender.name, contender.role, contender.does, *there)
    place = group.suite, group.map, group.shape, group.axis, group.dtype, group.limit
    return Row(*place, threads, *labels, **measured)


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows that were measured in turns, group by group."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.turns, []).append(row)
    return list(groups.values())


def merged(rows: Iterable[Row]) -> list[Row]:
    """Return one row a contender: the samples of all passes, and the ratios to others."""
    by_key: dict[Key, Row] = {}
    for row in rows:
        known = by_key.setdefault(row.key, row)
        if known is not row:
            known.passes += row.passes
            known.error = known.error or row.error
    for row in by_key.values():
        row.passes = row.passes if any(row.passes) else []
        if row.passes:
            row.p10, row.median, row.p90 = spread.quantiles(row.passes)
    groups = grouped(by_key.values())
    for row, other, between in _pairs(groups, _baseline):
        row.against, row.between = other.contender, between
        row.ratio = row.ratio_to(other)
    for row, other, between in _pairs(groups, _yardstick):
        row.yardstick = spread.ratio(row.passes, other.passes, between)
    return list(by_key.values())


def _pairs(
    groups: Sequence[list[Row]], to: Callable[[Row, list[Row]], Row | None]
) -> Iterable[tuple[Row, Row, float]]:
    """Return measured rows, what each is compared with, and how much ratios of its kind vary."""
    alike: dict[Key, list[tuple[Row, Row]]] = {}
    for group in groups:
        for row in group:
            if row.passes and (other := to(row, group)):
                alike.setdefault((*row.place, row.threads, row.dtype), []).append((row, other))
    for pairs in alike.values():
        between = spread.between_passes((a.passes, b.passes) for a, b in pairs if a is not b)
        yield from ((row, other, between) for row, other in pairs)


def _baseline(row: Row, group: list[Row]) -> Row | None:
    plain = [r for r in group if r.role == "plain" and r.passes and r.place == row.place]
    return min(plain, key=lambda r: r.seconds, default=None)


def _yardstick(row: Row, group: list[Row]) -> Row | None:
    """Return the contender by which all libraries are measured, on the row's device."""
    known = (r for r in group if r.contender in YARDSTICKS and r.device == row.device)
    there = [r for r in known if r.passes and (r.mode == "graph") == (row.mode == "graph")]
    return min(there, key=lambda r: YARDSTICKS.index(r.contender), default=None)
