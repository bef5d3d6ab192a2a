"""A result of made-up samples, for the tests of reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from invconv_benchmarks.measure.ceilings import Ceiling
from invconv_benchmarks.measure.contender import Label
from invconv_benchmarks.measure.memory import Peak
from invconv_benchmarks.measure.turns import Timing
from invconv_benchmarks.results import fits, limits, result
from invconv_benchmarks.results.collect import Collector
from invconv_benchmarks.results.messages import Sizes, Times
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import Row
from invconv_benchmarks.suites.group import Group

HEAD = Group("inverse", "corner 2", (64, 12, 16, 16), ())
ENVIRONMENT = {
    "cpu": "a processor",
    "cores": 2,
    "memory_bytes": 2**34,
    "gpus": [],
    "platform": "Linux",
    "python": "3.11",
    "versions": {"numpy": "2", "torch": "2", "jax": "0"},
    "commit": "abc",
}


def row(
    contender: str,
    role: str,
    does: str,
    samples: list[float],
    *,
    library: str = "numpy",
    error: str = "",
) -> tuple[Label, Timing]:
    """Return what a worker tells of a contender."""
    label = Label(contender, role, does, library, "cpu", "eager")
    return label, Timing(error=error) if error else Timing(1e-3, 2e-3, 1, samples)


def message(rows: list[tuple[Label, Timing]], **changes: Any) -> Times:
    """Return what a worker tells of a group."""
    return Times(replace(HEAD, **{"dtype": "float32"} | changes), rows)


def samples(center: float, noise: float = 0.01, count: int = 30, seed: int = 0) -> list[float]:
    """Return seconds around a centre."""
    factors = 1 + noise * np.random.default_rng(seed).standard_normal(count)
    return [float(center * f) for f in factors]


def made(inverse: float = 1.3e-3, noise: float = 0.01, seed: int = 0) -> Result:
    """Return a result of one group in two passes, and of a series over image sizes."""
    found = Collector()
    found.add(Ceiling("numpy", "cpu", "float32", 1, gemm_flops=1e11, copy_bytes=1e10), 1)
    _add_group(found, inverse, noise, seed)
    for n in (4, 8, 12, 16, 20, 24, 32):
        for does, power in (("forward", 1.0), ("inverse", 1.5)):
            part = [row(f"invconv {does}", "ours", does, [1e-6 * n ** (2 * power)] * 3)]
            place = {"suite": "scaling", "shape": (1, 3, n, n), "axis": "pixels"}
            found.add(message(part, **place), 1)
    rows = found.rows()
    exponents = fits.exponents(rows)
    return Result(
        invconv="0.1.0",
        date="2026-01-01T00:00:00+00:00",
        command="python -m invconv benchmark <inverse>",
        seconds=1.0,
        complete=True,
        quick=False,
        passes=2,
        environment=dict(ENVIRONMENT),
        load={"start": 0.1, "end": 9.0},
        not_run=["CuPy: not installed"],
        pools={},
        ceilings=list(found.ceilings.values()),
        rows=rows,
        exponents=exponents,
        limits=limits.verdicts(rows, exponents),
    )


def _add_group(found: Collector, inverse: float, noise: float, seed: int) -> None:
    conv2d = [samples(1.5e-3, noise, seed=seed + 30 + number) for number in range(2)]
    for number in range(2):
        parts = [
            row("invconv forward", "ours", "forward", samples(1.1e-3, noise, seed=seed + number)),
            row("invconv inverse", "ours", "inverse", samples(inverse, noise, seed=seed + 9)),
            row("im2col", "plain", "forward", samples(1e-3, noise, seed=seed + 20 + number)),
            row("F.conv2d", "plain", "forward", conv2d[number], library="torch"),
            row("slow one", "peer", "inverse", samples(1.0, noise, 2)),
            row("absent one", "peer", "inverse", [], error="not installed"),
        ]
        found.add(message(parts), 1)
    names = (("invconv inverse", "ours"), ("slow one", "peer"))
    labels = [row(name, role, "inverse", [])[0] for name, role in names]
    sizes: list[tuple[Label, Peak, float | None]] = [
        (label, Peak(10**6, 5 * 10**5), 1e-7) for label in labels
    ]
    found.add(Sizes(replace(HEAD, dtype="float32"), sizes), 2)


def written(folder: Path, **options: Any) -> tuple[Path, Result]:
    """Write a result, and return its path and what is read from there."""
    path = folder / "result.json"
    result.write(path, made(**options))
    return path, result.read(path)


def named(rows: list[Row], contender: str) -> Row:
    """Return a contender's row outside of series."""
    return next(r for r in rows if r.contender == contender and not r.axis)
