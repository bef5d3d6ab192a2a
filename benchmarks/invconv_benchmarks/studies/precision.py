"""The error of an inverse against the condition number, for every method.

``python -m invconv_benchmarks.studies.precision`` inverts kernels that grow from harmless to
hopeless, twice: "sampling" solves K x = y for a random y and a kernel that every precision holds
exactly, and compares with a substitution in extended precision that shares no code with the
library; "round trip" computes y = K x in the data's precision, solves, and compares with x. It
prints a table and writes the picture.

The error is max |x - x*| / max |x*|. Beside it stands the bound that it follows, the condition
number x eps, at least the rounding of the result: for sampling eps is that of the solve, for the
round trip that of the data, since no solve restores a digit of y that was rounded away.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import invconv as ic
from invconv_benchmarks.results.committed import THIS_VERSION
from invconv_conformance import printing
from invconv_conformance.truth.extended import ExtendedLU
from invconv_conformance.truth.substitution import substitute

Floats = np.ndarray[Any, Any]

RESULT = THIS_VERSION / "precision.png"


@dataclass(frozen=True)
class Method:
    """A way to solve.

    Attributes
    ----------
    name : str
    dtype : str
        Of the data.
    inside : str
        Of the solve, whose eps the bound has.
    settings : dict
        For `prepare`.
    """

    name: str
    dtype: str
    inside: str
    settings: dict[str, Any]


METHODS = (
    Method("float32", "float32", "float32", {}),
    Method("float32, float64 inside", "float32", "float64", {"precision": "float64"}),
    Method("float64", "float64", "float64", {}),
    Method("float16, float32 inside", "float16", "float32", {}),
)


@dataclass(frozen=True)
class Point:
    """An error, and the condition number it belongs to."""

    task: str
    family: str
    size: int
    method: Method
    condition: float
    error: float

    @property
    def bound(self) -> float:
        """Condition x eps, at least the rounding of the result."""
        inside = self.method.inside if self.task == "sampling" else self.method.dtype
        own = self.condition * float(np.finfo(inside).eps)
        return max(own, float(np.finfo(self.method.dtype).eps))


def corner(channels: int, strength: float) -> ic.InvertibleConv:
    """Return an autoregressive 2 x 2 convolution with taps of a strength."""
    rng = np.random.default_rng(0)
    kernel = strength * rng.standard_normal((channels, channels, 2, 2)) / channels**0.5
    kernel[:, :, 0, 0] = np.eye(channels)
    return ic.AutoregressiveConv(kernel)


def emerging(channels: int, strength: float) -> ic.InvertibleConv:
    """Return a pair of them."""
    first, second = corner(channels, strength), corner(channels, -strength)
    there = ic.AutoregressiveConv(first.parameters()["kernel"], direction=-1)
    back = ic.AutoregressiveConv(second.parameters()["kernel"], channel_order="upper")
    return ic.EmergingConv(there, back)


def periodic(channels: int, strength: float) -> ic.InvertibleConv:
    """Return a blur with circular padding, whose highest frequency is nearly lost."""
    line = np.asarray([0.25, 0.5, 0.25]) * (1 - np.exp2(-strength)) + [0, np.exp2(-strength), 0]
    kernel = np.eye(channels)[:, :, None, None] * np.multiply.outer(line, line)
    return ic.PeriodicConv(kernel)


def rounded(conv: ic.InvertibleConv) -> ic.InvertibleConv:
    """Return an operator whose arrays are exact in float16, in float64."""
    return conv.asarrays(np.empty(0, np.float16)).asarrays(np.empty(0))


Build = Callable[[float], ic.InvertibleConv]
FAMILIES: dict[str, tuple[Build, tuple[int, ...], tuple[float, ...]]] = {
    "corner, C = 1": (functools.partial(corner, 1), (16, 64), (0.1, 0.4, 0.6, 0.8, 0.9, 1.0, 1.2)),
    "corner, C = 12": (functools.partial(corner, 12), (16, 32), (0.1, 0.3, 0.4, 0.5, 0.7, 1.0)),
    "emerging, C = 3": (functools.partial(emerging, 3), (16, 32), (0.1, 0.3, 0.4, 0.5, 0.6, 0.8)),
    "periodic, C = 1": (functools.partial(periodic, 1), (8, 16), (1, 2, 3, 4, 5)),
}


def truth(conv: ic.InvertibleConv, y: Floats) -> Floats:
    """Return K^-1 y, shape (C, H, W), in extended precision."""
    if isinstance(conv, ic.EmergingConv):
        return truth(conv.first, truth(conv.second, y))
    if isinstance(conv, ic.AutoregressiveConv):
        return substitute(conv, y)
    n = y.size
    matrix = conv.forward(np.eye(n).reshape(n, *y.shape)).reshape(n, n).T  # taps, not sums of them
    solution: Floats = ExtendedLU(matrix).solve(y.reshape(n, 1)).reshape(y.shape)
    return solution


def points() -> Iterator[Point]:
    """Yield the error of every method, family, size and strength."""
    jobs = [
        (family, build, size, strength)
        for family, (build, sizes, strengths) in FAMILIES.items()
        for size in sizes
        for strength in strengths
    ]
    for family, build, size, strength in track(jobs, "solving", console=Console(stderr=True)):
        conv, grid = build(strength), (size, size)
        exact = rounded(conv)
        draw = np.random.default_rng(1).standard_normal((conv.channels, *grid))
        y = draw.astype(np.float16).astype(np.float64)
        solution = truth(exact, y)
        for method in METHODS:
            prepared, x = _prepared(conv, grid, method), draw.astype(method.dtype)
            with np.errstate(all="ignore"):  # float16 overflows
                sample = _prepared(exact, grid, method).inverse(y.astype(method.dtype))
                back = prepared.inverse(prepared.conv.forward(x))
                errors = {
                    "sampling": (exact, _error(sample, solution)),
                    "round trip": (conv, _error(back, x)),
                }
            for task, (which, error) in errors.items():
                yield Point(task, family, size, method, which.condition(grid), error)


def _prepared(conv: ic.InvertibleConv, grid: tuple[int, int], method: Method) -> ic.PreparedInverse:
    like = np.empty(0, method.dtype)
    return conv.asarrays(like).prepare(grid, check=False, **method.settings)


def _error(x: Floats, exact: Floats) -> float:
    error = float(np.abs(x.astype(np.float64) - exact).max() / np.abs(exact).max())
    return error if np.isfinite(error) else np.inf


def table(found: list[Point], task: str) -> Table:
    """Return the errors, a row a condition number and a column a method."""
    result = Table("operator", "grid", "condition", *(m.name for m in METHODS), title=task)
    rows: dict[tuple[str, int, float], dict[str, Point]] = {}
    for p in found:
        if p.task == task:
            rows.setdefault((p.family, p.size, p.condition), {})[p.method.name] = p
    for (family, size, number), row in rows.items():
        errors = [f"{row[m.name].error:.1e}" for m in METHODS]
        result.add_row(family, f"{size} x {size}", f"{number:.1e}", *errors)
    return result


def share(found: list[Point]) -> dict[tuple[str, str], float]:
    """Return the largest error / bound of each task and method, where the bound is below 1."""
    largest: dict[tuple[str, str], float] = {}
    for p in found:
        if p.bound < 1:
            key = p.task, p.method.name
            largest[key] = max(largest.get(key, 0.0), p.error / p.bound)
    return largest


def picture(found: list[Point], path: Path) -> None:
    """Draw error against condition, a panel a task, with the bounds as lines."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 2, figsize=(11, 5.4), sharex=True, sharey=True, dpi=110, layout="constrained"
    )
    numbers = np.logspace(0, 20, 200)
    for axis, task in zip(axes, ("sampling", "round trip"), strict=True):
        solved = {m.inside if task == "sampling" else m.dtype for m in METHODS}
        for eps, name in sorted((float(np.finfo(name).eps), name) for name in solved):
            axis.loglog(numbers, np.clip(numbers * eps, None, 10), color="0.6", lw=1, zorder=1)
            axis.annotate(f"{name}'s", (4.0, 9 * eps), color="0.4", size=8,
                          rotation=35, rotation_mode="anchor")  # fmt: skip
        for i, method in enumerate(METHODS):
            for family, marker in zip(FAMILIES, "o^sD", strict=True):
                mine = [p for p in found if (p.task, p.method, p.family) == (task, method, family)]
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    """Print the tables, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=RESULT, metavar="PATH")
    arguments = parser.parse_args()
    found = list(points())
    console = printing.console()
    for task in ("sampling", "round trip"):
        console.print(table(found, task))
    for (task, name), value in share(found).items():
        console.print(f"{task}, {name}: at most {value:.2g} of the bound")
    picture(found, arguments.picture)
    console.print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()
