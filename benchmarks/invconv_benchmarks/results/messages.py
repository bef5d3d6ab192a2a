"""The messages of a worker process: times, memory, ceilings and thread pools."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from invconv_benchmarks.measure.ceilings import Ceiling
from invconv_benchmarks.measure.contender import Label
from invconv_benchmarks.measure.memory import Peak
from invconv_benchmarks.measure.turns import Timing
from invconv_benchmarks.suites.group import Group


@dataclass(frozen=True)
class Times:
    """How long the contenders of a group took in a pass, or why none was measured."""

    group: Group
    rows: list[tuple[Label, Timing]] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class Sizes:
    """The memory that the contenders of a group took, and the residuals of those that solve."""

    group: Group
    rows: list[tuple[Label, Peak, float | None]] = field(default_factory=list)


@dataclass(frozen=True)
class Pools:
    """The thread pools of a process, as threadpoolctl sees them."""

    found: list[dict[str, Any]]


Message = Times | Sizes | Pools | Ceiling
