"""The error of an inverse against the condition number, for every method.

"sampling" solves K x = y for a random y and a kernel that every precision holds exactly, and
compares with extended precision; "round trip" computes y = K x, solves, and compares with x. The
error max |x - x*| / max |x*| is held to the condition number x eps: for sampling eps is that of the
solve, for the round trip that of the data, since no solve restores a digit that y has lost.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import track

import invconv as ic
from invconv_benchmarks.demo.diagnose import random_corner
from invconv_benchmarks.report.figures import Floats, save
from invconv_benchmarks.results.result import Verdict, judged
from invconv_benchmarks.studies.silent_error import maps

Build = Callable[[float], ic.InvertibleConv]

_TASKS = ("sampling", "round trip")
_CAPTION = "Error of the inverse against its condition number, with the bounds that it follows"


class Method(NamedTuple):
    """A way to solve: its name, the data's dtype, and that of the solve, whose eps counts."""

    name: str
    dtype: str
    inside: str


METHODS = (
    Method("float32", "float32", "float32"),
    Method("float32, float64 inside", "float32", "float64"),
    Method("float64", "float64", "float64"),
    Method("float16, float32 inside", "float16", "float32"),
)


class Point(NamedTuple):
    """An error, and the condition number it belongs to."""

    task: str
    family: str
    method: Method
    condition: float
    error: float

    @property
    def bound(self) -> float:
        """Condition x eps, at least the rounding of the result."""
        method = self.method
        own = float(np.finfo(method.inside if self.task == "sampling" else method.dtype).eps)
        return max(self.condition * own, float(np.finfo(method.dtype).eps))


def _corner(channels: int, strength: float) -> ic.AutoregressiveConv:
    return random_corner(channels, strength / channels**0.5)


def _emerging(channels: int, strength: float) -> ic.EmergingConv:
    first, second = _corner(channels, strength), _corner(channels, -strength)
    there = ic.AutoregressiveConv(first.kernel, direction=-1)
    return ic.EmergingConv(there, ic.AutoregressiveConv(second.kernel, channel_order="upper"))


def _periodic(channels: int, strength: float) -> ic.PeriodicConv:
    """Return a blur with circular padding, whose highest frequency is nearly lost."""
    line = np.asarray([0.25, 0.5, 0.25]) * (1 - np.exp2(-strength)) + [0, np.exp2(-strength), 0]
    return ic.PeriodicConv(np.eye(channels)[:, :, None, None] * np.multiply.outer(line, line))


FAMILIES: dict[str, tuple[Build, tuple[int, ...], tuple[float, ...]]] = {
    "corner, C = 1": (partial(_corner, 1), (16, 64), (0.1, 0.4, 0.6, 0.8, 0.9, 1.0, 1.2)),
    "corner, C = 12": (partial(_corner, 12), (16, 32), (0.1, 0.3, 0.4, 0.5, 0.7, 1.0)),
    "emerging, C = 3": (partial(_emerging, 3), (16, 32), (0.1, 0.3, 0.4, 0.5, 0.6, 0.8)),
    "periodic, C = 1": (partial(_periodic, 1), (8, 16), (1, 2, 3, 4, 5)),
}


def points(quick: bool) -> Iterator[Point]:
    """Yield the error of every method, family, size and strength; ``quick``: of small sizes."""
    jobs = [
        (family, build, size, strength)
        for family, (build, sizes, strengths) in FAMILIES.items()
        for size in (sizes[:1] if quick else sizes)
        for strength in strengths
    ]
    for family, build, size, strength in track(jobs, "solving", console=Console(stderr=True)):
        conv, grid = build(strength), (size, size)
        exact = conv.asarrays(np.empty(0, np.float16)).asarrays(np.empty(0))
        draw = np.random.default_rng(1).standard_normal((conv.channels, *grid))
        y = draw.astype(np.float16).astype(np.float64)
        solution = maps(exact, grid)[1](y[None])[0]
        for method in METHODS:
            prepared, x = _prepared(conv, grid, method), draw.astype(method.dtype)
            with np.errstate(all="ignore"):  # float16 overflows
                sample = _prepared(exact, grid, method).inverse(y.astype(method.dtype))
                back = prepared.inverse(prepared.conv.forward(x))
                of_sample, of_trip = _error(sample, solution), _error(back, x)
            yield Point("sampling", family, method, exact.condition(grid), of_sample)
            yield Point("round trip", family, method, conv.condition(grid), of_trip)


def _prepared(conv: ic.InvertibleConv, grid: tuple[int, int], method: Method) -> ic.PreparedInverse:
    precision = "float64" if method.inside == "float64" != method.dtype else None
    there = conv.asarrays(np.empty(0, method.dtype))
    return there.prepare(grid, check=False, precision=precision)


def _error(x: Floats, exact: Floats) -> float:
    error = float(np.abs(x.astype(np.float64) - exact).max() / np.abs(exact).max())
    return error if np.isfinite(error) else 1e30  # JSON has no infinity


def measure(quick: bool, folder: Path) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge the largest error / bound of each task and method, where the bound is below 1."""
    every, path = list(points(quick)), folder / "precision.png"
    verdicts = []
    for task, method in itertools.product(_TASKS, METHODS):
        mine = [p for p in every if (p.task, p.method) == (task, method) and p.bound < 1]
        share = max(p.error / p.bound for p in mine)
        what = f"{task}, {method.name}: {len(mine)} inverses"
        verdicts.append(judged("error / (condition x eps)", what, share, 1.0))
    _draw(every, path)
    return verdicts, {_CAPTION: path}


def _draw(every: list[Point], path: Path) -> None:
    shared: dict[str, Any] = {"sharex": True, "sharey": True, "layout": "constrained"}
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), **shared)
    numbers = np.logspace(0, 20, 200)
    for axis, task in zip(axes, _TASKS, strict=True):
        solved = {m.inside if task == "sampling" else m.dtype for m in METHODS}
        for eps, name in sorted((float(np.finfo(name).eps), name) for name in solved):
            axis.loglog(numbers, np.clip(numbers * eps, None, 10), color="0.6", lw=1, zorder=1)
            axis.annotate(f"{name}'s", (4.0, 9 * eps), color="0.4", size=8,
                          rotation=35, rotation_mode="anchor")  # fmt: skip
        for i, method in enumerate(METHODS):
            for family, marker in zip(FAMILIES, "o^sD", strict=True):
                mine = [p for p in every if (p.task, p.method, p.family) == (task, method, family)]
                x = [min(p.condition, 1e20) for p in mine]
                y = [min(max(p.error, 1e-17), 10.0) for p in mine]
                label = method.name if marker == "o" else None
                axis.loglog(x, y, marker, color=f"C{i}", ms=4.5, alpha=0.75, label=label)
        axis.set(title=task, xlabel="condition number", xlim=(1, 1e20), ylim=(3e-18, 20))
        axis.axhline(1e-2, color="tab:red", lw=0.8, ls=":")
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("largest error / largest value")
    axes[0].text(1.5e13, 1.4e-2, "two digits left", color="tab:red", size=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, loc="outside lower center", ncols=3)
    markers = ", ".join(f"{m} {f}" for f, m in zip(FAMILIES, "●▲■◆", strict=True))
    figure.suptitle(f"What an inverse keeps   ({markers}; lines: condition x eps)", fontsize=11)
    save(figure, path)
