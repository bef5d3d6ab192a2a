"""A result of invented samples, for the tests of reports."""

from typing import Any

import numpy as np

from invconv_benchmarks.results import limits
from invconv_benchmarks.results.result import Result
from invconv_benchmarks.results.row import Row, merged

ENVIRONMENT = {"cpu": "a processor", "cores": 2, "memory_bytes": 2**34, "gpus": []}
ENVIRONMENT |= {"platform": "Linux", "python": "3.11", "blas": ["Haswell"], "commit": "abc"}
ENVIRONMENT |= {"versions": {"numpy": "2", "torch": "2", "jax": "0"}}


def row(contender: str, role: str, does: str, samples: list[float], **others: Any) -> Row:
    """Return what a worker tells of a contender in one pass."""
    fields: dict[str, Any] = {"suite": "inverse", "map": "corner 2", "shape": (64, 12, 16, 16)}
    fields |= {"axis": "", "dtype": "float32", "limit": None, "threads": 1}
    fields |= {"library": "numpy", "device": "cpu", "mode": "eager", "plan": 1e-3, "first": 2e-3}
    fields |= {"contender": contender, "role": role, "does": does}
    return Row(**fields | {"passes": [samples] if samples else []} | others)


def samples(center: float, noise: float = 0.01, count: int = 30, seed: int = 0) -> list[float]:
    """Return seconds around a centre."""
    factors = 1 + noise * np.random.default_rng(seed).standard_normal(count)
    return [float(center * f) for f in factors]


def invented(inverse: float = 1.3e-3, noise: float = 0.01) -> Result:
    """Return a result of one group in two passes, and of a series over image sizes."""
    found, ours = [], samples(inverse, noise, seed=9)
    for number in range(2):
        found += [
            row("invconv forward", "ours", "forward", samples(1.1e-3, noise, seed=number)),
            row("invconv inverse", "ours", "inverse", ours, residual=1e-7),
            row("im2col", "plain", "forward", samples(1e-3, noise, seed=20 + number)),
            row("F.conv2d", "plain", "forward", samples(1.5e-3, noise, seed=30), library="torch"),
            row("slow one", "peer", "inverse", samples(1.0, noise, 2)),
            row("broken one", "peer", "inverse", [], error="RuntimeError: <no> such thing"),
        ]
    for n in (4, 8, 12, 16, 20):
        for does, power in (("forward", 1.0), ("inverse", 1.5)):
            place = {"suite": "growth", "shape": (1, 3, n, n), "axis": "pixels"}
            seconds = [1e-6 * n ** (2 * power)] * 3
            found.append(row(f"invconv {does}", "ours", does, seconds, **place))
    rows = merged(found)
    run: dict[str, Any] = {"invconv": "0.1.0", "date": "2026-01-01T00:00:00+00:00", "passes": 2}
    run |= {"command": "python -m invconv benchmark <inverse>", "not_run": ["CuPy: not installed"]}
    run |= {"seconds": 1.0, "complete": True, "quick": False, "load": {"start": 0.1, "end": 9.0}}
    return Result(environment=dict(ENVIRONMENT), rows=rows, limits=limits.verdicts(rows), **run)
