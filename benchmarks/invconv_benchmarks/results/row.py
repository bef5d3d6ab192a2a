"""A row of a result: the measurements of a contender, and its comparison with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from invconv_benchmarks.measure.memory import Peak
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.suites.group import Group, as_text
from invconv_conformance.libraries.table import LIBRARIES

Key = tuple[Any, ...]

TITLES = {library.name: library.title for library in LIBRARIES}


@dataclass
class Row:
    """A contender of a group.

    Attributes
    ----------
    suite, map, shape, axis, dtype
        As of the `Group`.
    threads : int
    contender, role, does, library, device, mode
        As of the `Label`.
    plan, first : float or None
        Seconds of the first pass, to plan and for the first call.
    calls : int
        The number of calls that a sample is the mean of.
    error : str
        What went wrong.
    passes : list of list of float
        The samples in seconds, pass by pass.
    memory : Peak or None
    residual : float or None
    p10, median, p90 : float or None
        Quantiles of all samples.
    against : str or None
        The fastest plain convolution of the same library.
    ratio : Interval or None
        Of the medians, to that one.
    between : float
        The standard deviation of the logarithm of the ratio from pass to pass.
    yardstick : Interval or None
        The ratio of medians to PyTorch's F.conv2d.
    roofline : float or None
        The least time at the measured ceilings over the median.
    """

    suite: str
    map: str
    shape: tuple[int, ...]
    axis: str
    dtype: str
    threads: int
    contender: str
    role: str
    does: str
    library: str
    device: str
    mode: str
    plan: float | None = None
    first: float | None = None
    calls: int = 1
    error: str = ""
    passes: list[list[float]] = field(default_factory=list)
    memory: Peak | None = None
    residual: float | None = None
    p10: float | None = None
    median: float | None = None
    p90: float | None = None
    against: str | None = None
    ratio: Interval | None = None
    between: float = 0.0
    yardstick: Interval | None = None
    roofline: float | None = None

    @property
    def key(self) -> Key:
        """The attributes that identify a row within a result, and across results."""
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
    def group(self) -> Group:
        """The group, with what the row does alone."""
        does = () if self.does == "all" else (self.does,)
        return Group(self.suite, self.map, self.shape, does, axis=self.axis, dtype=self.dtype)

    @property
    def words(self) -> tuple[str, str, str]:
        """The shape, the dtype and the number of threads, for a table."""
        return as_text(self.shape), self.dtype.replace("float", "f"), str(self.threads)

    @property
    def seconds(self) -> float:
        """The median of a row that was measured."""
        assert self.median is not None
        return self.median


def as_json(row: Row) -> dict[str, Any]:
    """Return what a result file holds of a row: the ratio is three numbers there."""
    found = asdict(row)
    ratio = found.pop("ratio") or dict.fromkeys(("value", "low", "high"))
    return found | {"ratio": ratio["value"], "low": ratio["low"], "high": ratio["high"]}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return a file's row with the ratio's three numbers in one place, as `Row` has them."""
    found = dict(values)
    ratio = {"value": found["ratio"], "low": found.pop("low"), "high": found.pop("high")}
    return found | {"ratio": None if ratio["value"] is None else ratio}


def grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows that were measured in turns, group by group."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.turns, []).append(row)
    return list(groups.values())
