"""Exponents of cost against size, fitted to the scaling suite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from invconv_benchmarks.measure import spread
from invconv_benchmarks.measure.spread import LEAST_SIZES, Exponent
from invconv_benchmarks.results.row import Key, Row

_SERIES = "axis", "library", "device", "mode", "dtype", "threads", "contender", "does", "role"


@dataclass(frozen=True, kw_only=True)
class Fit(Exponent):
    """An exponent fitted to a series, whose rows have these attributes.

    ``range`` is the part of the sizes that it is fitted to, "all" or the "upper half".
    """

    axis: str
    library: str
    device: str
    mode: str
    dtype: str
    threads: int
    contender: str
    does: str
    role: str
    range: str

    @property
    def series(self) -> Key:
        """What identifies the series."""
        place = self.library, self.device, self.mode, self.dtype, self.threads
        return (self.axis, *place, self.contender, self.does)


def series_of(row: Row) -> Key:
    """Return what identifies the series that a row is a point of."""
    return (row.axis, *row.place, row.dtype, row.threads, row.contender, row.does)


def size(row: Row) -> float:
    """Return where a row is on its axis."""
    batch, channels, height, width = row.shape
    taps = float(row.map.partition(" ")[2] or 1)
    sizes = {"pixels": height * width, "batch": batch, "channels": channels, "kernel": taps}
    return float(sizes[row.axis])


def series(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    """Return the measured rows of the scaling suite, series by series, by size."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        if row.suite == "scaling" and row.passes:
            found.setdefault(series_of(row), []).append(row)
    return {name: sorted(points, key=size) for name, points in found.items()}


def exponents(rows: Sequence[Row]) -> list[Fit]:
    """Return the exponent of every series of at least `spread.LEAST_SIZES` sizes.

    It is fitted twice: over all sizes, and over the "upper half", half of them and one more, where
    what a call costs at any size no longer shows.
    """
    fits = []
    for points in series(rows).values():
        sizes, seconds = [size(p) for p in points], [p.seconds for p in points]
        larger = math.floor(len(points) / 2) - 1
        for part, start in (("all", 0), ("upper half", larger)):
            if len(sizes) - start < LEAST_SIZES or (part != "all" and start < 1):
                continue
            fit = spread.exponent(sizes[start:], seconds[start:])
            common = {name: getattr(points[0], name) for name in _SERIES}
            fits.append(Fit(**asdict(fit), **common, range=part))
    return fits


def unstated(rows: Sequence[Row]) -> str:
    """Return why some axes have no exponent, "" if all that were measured have one."""
    sizes: dict[str, int] = {}
    for name, points in series(rows).items():
        sizes[name[0]] = max(sizes.get(name[0], 0), len(points))
    few = [f"{axis} ({count})" for axis, count in sizes.items() if count < LEAST_SIZES]
    if not few:
        return ""
    return f"no exponents in {', '.join(few)}: they are fitted to at least {LEAST_SIZES} sizes"
