"""``invconv density sampling-chart``: time to sample each layer against the size of the images.

Writes sampling-chart.json and sampling-chart.png into a folder. What is measured is kept after each
point: interrupted, the same command goes on; a chart that is complete is measured anew.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.evaluation import layer_sampling
from invconv_benchmarks.density.evaluation.layer_sampling import Point
from invconv_benchmarks.density.models.appearance import COLORS, TITLES
from invconv_benchmarks.measure import environment
from invconv_benchmarks.options import numbers
from invconv_benchmarks.report.figures import label_ends, save
from invconv_benchmarks.results import sealed
from invconv_conformance import printing
from invconv_conformance.arguments import words

SCHEMA = "invconv-sampling-chart/1"
SIZES = (8, 16, 32, 64, 128, 256)
NAME = "sampling-chart"
_COLORS = {TITLES[mixing]: color for mixing, color in COLORS.items()} | {
    layer_sampling.COUPLING: "#c9a227",
    layer_sampling.DIAGONALS: COLORS["emerging_plu"],
    layer_sampling.PIXELS: COLORS["emerging_qr"],
    layer_sampling.NUMBERS: COLORS["maf"],
}
_UNITS = (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0))


@dataclass(frozen=True)
class Chart:
    """What was measured, and where."""

    date: str
    environment: dict[str, Any]
    load: dict[str, float | None]
    count: int
    sizes: list[int]
    points: list[Point]

    @property
    def left(self) -> list[tuple[str, int]]:
        """The ways and sizes that are not measured yet, small images first."""
        done = {(point.way, point.size) for point in self.points}
        every = [(way, size) for size in self.sizes for way in layer_sampling.WAYS]
        return [pair for pair in every if pair not in done]

    @property
    def busy(self) -> bool:
        """Whether other work wanted the processor meanwhile."""
        return environment.busy(self.load, self.environment["cores"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--count", type=int, default=100, help="samples (default: %(default)s)")
    parser.add_argument("--sizes", type=words, default=tuple(map(str, SIZES)), help="such as 8,16")
    parser.add_argument("--out", type=Path, default=Path(f"invconv-{NAME}"), help="the folder")
    parser.set_defaults(verb_run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure what is left, and draw."""
    sizes = numbers("--sizes", arguments.sizes, int)
    if arguments.count < 1 or not all(size >= 2 and size % 2 == 0 for size in sizes):
        raise CommandError("expected a --count of at least 1 and --sizes that are even")
    chart = _begin(arguments.out / f"{NAME}.json", arguments.count, sizes)
    console = printing.console()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for way, size in chart.left:
            point = layer_sampling.measure(way, size, chart.count)
            chart.points.append(point)
            chart.load["end"] = environment.load()
            _write(arguments.out / f"{NAME}.json", chart)
            console.print(f"{way}, {size} x {size}: {cell(point)}", highlight=False)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from here")
        return 130
    finally:
        torch.set_num_threads(threads)
    draw(chart, arguments.out / f"{NAME}.png")
    console.print(f"{arguments.out}/{NAME}.json and {NAME}.png", markup=False)
    return 0


def _begin(path: Path, count: int, sizes: Sequence[int]) -> Chart:
    """Return the chart that was left incomplete on this machine, or an empty one."""
    here = environment.environment()
    if path.exists():
        found = read(path)
        same = found.count == count and found.sizes == list(sizes)
        if (
            found.left
            and same
            and all(found.environment[n] == here[n] for n in ("cpu", "versions"))
        ):
            return found
    path.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Chart(date, here, {"start": environment.load()}, count, list(sizes), [])


def _write(path: Path, chart: Chart) -> None:
    sealed.write(path, {"schema": SCHEMA} | asdict(chart))


def read(path: Path) -> Chart:
    """Return a chart's numbers.

    Raises
    ------
    ValueError
        If it is no such file, is cut off, or was changed after it was written.
    """
    return sealed.load(path, Chart, sealed.schema(__package__, "sampling_chart.schema.json"))


def cell(point: Point) -> str:
    """Return a time in words, marked where it is extrapolated."""
    unit, length = next((u for u in reversed(_UNITS) if point.seconds >= u[1]), _UNITS[0])
    return f"{'≈ ' if point.share < 1 else ''}{float(f'{point.seconds / length:.2g}'):g} {unit}"


def draw(chart: Chart, path: Path) -> None:
    """Write the picture: both axes logarithmic, hollow points extrapolated."""
    figure, axis = plt.subplots(figsize=(9.6, 7.2), layout="constrained")
    ends = []
    for way in layer_sampling.WAYS:
        points = [point for point in chart.points if point.way == way]
        xs, ys = [p.size for p in points], [p.seconds for p in points]
        color, dashed = _COLORS[way], way not in layer_sampling.LAYERS
        axis.plot(xs, ys, "--" if dashed else "-", color=color, lw=1.4, zorder=2)
        for point in points:
            inside = color if point.share == 1 else "white"
            axis.plot(point.size, point.seconds, "o", ms=5, color=color, markerfacecolor=inside)
        ends.append((way, xs[-1], ys[-1], color))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(chart.sizes, [f"{size}×{size}" for size in chart.sizes])
    low, high = axis.get_ylim()
    axis.set_yticks([length for _, length in _UNITS], [f"1 {unit}" for unit, _ in _UNITS])
    axis.set_ylim(low, high)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.set_xlabel("pixels of an image in colour")
    axis.set_ylabel(f"time for {chart.count} samples through one layer")
    busy = "; busy with other work" if chart.busy else ""
    axis.set_title(
        f"{chart.environment['cpu']}, one thread{busy}\nfilled: all of the work was run; "
        "hollow: extrapolated from a part; dashed: no mixing layer of ours", fontsize=10,
    )  # fmt: skip
    label_ends(axis, ends, gap=0.04)
    save(figure, path)


def markdown(chart: Chart) -> list[str]:
    """Return the lines of the README's table."""
    busy = ", **on a machine that was busy with other work**" if chart.busy else ""
    lines = [
        f"{chart.environment['cpu']}, one thread, torch "
        f"{chart.environment['versions']['torch']}, {chart.date[:10]}{busy}. Time for "
        f"{chart.count} samples through one layer; ≈: extrapolated from a part.",
        "",
        f"| | {' | '.join(f'{size}×{size}' for size in chart.sizes)} |",
        "|---" * (1 + len(chart.sizes)) + "|",
    ]
    found = {(point.way, point.size): point for point in chart.points}
    for way in layer_sampling.WAYS:
        cells = [cell(found[way, size]) for size in chart.sizes]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines
