"""How costs grow: exponents fitted to the scaling suite."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from invconv_benchmarks import spread
from invconv_benchmarks.collect import Row
from invconv_benchmarks.spread import LEAST_SIZES

_SERIES = ("axis", "library", "device", "mode", "dtype", "threads", "contender", "does")


def size(row: Row) -> float:
    """Return where a row is on its axis."""
    batch, channels, height, width = row["shape"]
    taps = float(row["map"].partition(" ")[2] or 1)
    return float(
        {"pixels": height * width, "batch": batch, "channels": channels, "kernel": taps}[
            row["axis"]
        ]
    )


def series(rows: list[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Return the measured rows of the scaling suite, series by series, by size."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["suite"] == "scaling" and row["passes"]:
            found.setdefault(tuple(row[k] for k in _SERIES), []).append(row)
    return {name: sorted(points, key=size) for name, points in found.items()}


def exponents(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the exponent of every series of at least `spread.LEAST_SIZES` sizes.

    It is fitted twice: over all sizes, and over the "upper half", half of them and one more, where
    what a call costs at any size no longer shows.
    """
    fits = []
    for name, points in series(rows).items():
        sizes, seconds = [size(p) for p in points], [p["median"] for p in points]
        larger = math.floor(len(points) / 2) - 1
        for part, start in (("all", 0), ("upper half", larger)):
            if len(sizes) - start < LEAST_SIZES or (part != "all" and start < 1):
                continue
            fit = spread.exponent(sizes[start:], seconds[start:])
            head = dict(zip(_SERIES, name, strict=True)) | {"role": points[0]["role"]}
            fits.append(head | {"range": part} | asdict(fit))
    return fits


def unstated(rows: list[Row]) -> str:
    """Return why some axes have no exponent, "" if all that were measured have one."""
    sizes: dict[str, int] = {}
    for name, points in series(rows).items():
        sizes[name[0]] = max(sizes.get(name[0], 0), len(points))
    few = [f"{axis} ({count})" for axis, count in sizes.items() if count < LEAST_SIZES]
    if not few:
        return ""
    return f"no exponents in {', '.join(few)}: they are fitted to at least {LEAST_SIZES} sizes"
