"""Samples of flows with and without a floor under the scale of couplings and splits.

``python -m invconv_benchmarks.density.compare.floors`` trains a small Glow for each floor, on the
same tiles in the same order, draws 10,000 samples of each with the same noise, and prints how many
are not finite and how many leave [0, 1). Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.data.users_data import load
from invconv_benchmarks.density.evaluation import leaving
from invconv_benchmarks.density.evaluation.leaving import Leaving
from invconv_benchmarks.density.models.architecture import MIXINGS
from invconv_benchmarks.density.recipes.preset import load_preset
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.health import DivergedError
from invconv_benchmarks.density.training.lines import Lines
from invconv_benchmarks.density.training.run import Report, train
from invconv_benchmarks.options import numbers
from invconv_benchmarks.report.tables import new
from invconv_conformance import printing
from invconv_conformance.arguments import words


def measure(
    recipe: Recipe, data: Dataset, folder: Path, samples: int, report: Report
) -> tuple[float, Leaving]:
    """Train, or go on where it stopped; return bits/dim of held-out tiles and what leaves."""
    run = train(recipe, data, folder, report=report)
    return run.history[-1]["held_out"], leaving.of_model(run.average, samples)


def table(title: str, found: Mapping[float, tuple[float, Leaving]]) -> Table:
    """Return a column for each floor."""
    shown = new(title, ("scale_floor",), tuple(f"{floor:g}" for floor in found))
    lines: dict[str, Callable[[Leaving], str]] = {
        "samples not finite": lambda f: f"{f.non_finite}",
        "samples that leave [0, 1)": lambda f: f"{f.outside}",
        "samples that leave [-1, 2]": lambda f: f"{f.far}",
        "numbers not finite": lambda f: f"{f.numbers_non_finite}",
        "numbers outside [0, 1)": lambda f: f"{f.numbers_outside / f.numbers:.2%}",
        "largest number": lambda f: f"{f.largest:.2g}",
    }
    shown.add_row("bits/dim, tiles held out", *(f"{bits:.3f}" for bits, _ in found.values()))
    for name, say in lines.items():
        shown.add_row(name, *(say(leaves) for _, leaves in found.values()))
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floors", type=words, default=("0", "0.5"), help="default: 0,0.5")
    parser.add_argument("--preset", default="hubble", help="default: %(default)s")
    parser.add_argument("--mixing", default="emerging", choices=MIXINGS, help="default: emerging")
    parser.add_argument("--steps", type=int, help="instead of the preset's")
    parser.add_argument("--count", type=int, default=10_000, help="samples of each")
    parser.add_argument("--out", type=Path, default=Path("invconv-density-floors"))
    arguments = parser.parse_args(argv)
    preset, console = load_preset(arguments.preset), printing.console()
    found: dict[float, tuple[float, Leaving]] = {}
    for floor in numbers("--floors", arguments.floors, float):
        recipe = preset.recipe(arguments.mixing, steps=arguments.steps, scale_floor=floor)
        data, folder = load(recipe.data), arguments.out / f"{arguments.mixing}-{floor:g}"
        lines = Lines(console, f"floor {floor:g}")
        try:
            found[floor] = measure(recipe, data, folder, arguments.count, lines)
        except DivergedError as error:
            console.print(f"floor {floor:g}: {error}", markup=False)
    title = f"{arguments.count} samples each: {preset.name}, {arguments.mixing}"
    console.print(table(title, found))


if __name__ == "__main__":
    main()
