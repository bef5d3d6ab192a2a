"""``invconv density``: train, sample from, evaluate and compare density models of images."""

from __future__ import annotations

import argparse
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from invconv.arrays.errors import CommandError, as_command_errors
from invconv.arrays.settings import choice
from invconv_benchmarks.density.compare.comparison import perform, show
from invconv_benchmarks.density.compare.plan import Comparison, around
from invconv_benchmarks.density.compare.summary import standard_error
from invconv_benchmarks.density.data.users_data import NAMES, load, stand_in
from invconv_benchmarks.density.evaluation import evaluation, grid, leaving, sampling_chart
from invconv_benchmarks.density.models.architecture import MIXINGS
from invconv_benchmarks.density.recipes.preset import load_preset, preset_names
from invconv_benchmarks.density.recipes.recipe import PRECISIONS, Recipe
from invconv_benchmarks.density.training import dry_run
from invconv_benchmarks.density.training.lines import Lines
from invconv_benchmarks.density.training.run import stopping, train
from invconv_benchmarks.options import numbers
from invconv_conformance import printing
from invconv_conformance.arguments import words

_SETTINGS: dict[str, tuple[type[Any], str]] = {
    "levels": (int, "of the multi-scale flow, each of which squeezes the image"),
    "depth": (int, "steps of the flow a level"),
    "width": (int, "channels inside the networks of the couplings"),
    "steps": (int, "updates of the parameters"),
    "batch": (int, "images an update"),
    "learning_rate": (float, "of Adamax, once it has warmed up"),
}
_DEFAULT = "default: %(default)s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    names = "train|sample|evaluate|compare|sampling-chart"
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=names)
    _add_train(verbs.add_parser("train", help="train one model, or go on where it stopped"))
    _add_compare(verbs.add_parser("compare", help="train every mixing layer on equal terms"))
    verb = verbs.add_parser("sample", help="draw samples from a checkpoint into a picture")
    _add_checkpoint(verb, _sample)
    verb.add_argument("--count", type=int, default=64, help=_DEFAULT)
    verb.add_argument("--seed", type=int, default=0, help="of the noise")
    verb.add_argument("--stretch", action="store_true", help="brighten dark pixels")
    verb.add_argument("--out", type=Path, default=Path("samples.png"))
    verb = verbs.add_parser("evaluate", help="bits/dim of the test set, and round trips")
    _add_checkpoint(verb, _evaluate)
    verb.add_argument("--path", type=Path, help="of the data, if they are yours")
    returning = "of images and samples that go and return"
    verb.add_argument("--count", type=int, default=100, help=returning)
    chart = verbs.add_parser("sampling-chart", help="time to sample each layer, by images' size")
    sampling_chart.add_arguments(chart)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mixing", default="emerging", choices=MIXINGS, help=_DEFAULT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help=f"such as cuda ({_DEFAULT})")
    parser.add_argument(
        "--out", type=Path, help="the folder of the checkpoint (default: invconv-density-PRESET-…)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print parameters, memory and the time a step and an epoch will take, from a few "
        "steps, and write nothing; without --path on noise of the size of the data",
    )
    _add_settings(parser, "hubble")
    parser.set_defaults(verb_run=_train)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="minutes: one seed, few steps")
    parser.add_argument("--seeds", type=words, help="such as 0,1,2 (the default; with --quick: 0)")
    parser.add_argument(
        "--learning-rates",
        type=words,
        default=(),
        help="with which each row's sweep begins, such as 1e-2,3e-2,1e-1; it goes on until the "
        "best is not the outermost (default: the preset's and its neighbours; with --quick or "
        "--learning-rate: that one alone)",
    )
    rows = "the rows, such as plain,emerging"
    parser.add_argument("--mixings", type=words, default=MIXINGS, help=rows)
    parser.add_argument("--workers", type=int, default=2, help=f"processes ({_DEFAULT})")
    parser.add_argument("--out", type=Path, help="the folder of the runs and the result")
    _add_settings(parser, None)
    parser.set_defaults(verb_run=_compare)


def _add_checkpoint(parser: argparse.ArgumentParser, does: Callable[..., int]) -> None:
    """Declare the options of both verbs that take a checkpoint."""
    parser.add_argument("of", type=Path, help="the folder of a run, or its checkpoint")
    parser.add_argument("--device", default="cpu", help=f"such as cuda ({_DEFAULT})")
    parser.add_argument("--temperature", type=float, default=1.0, help=f"of the noise ({_DEFAULT})")
    parser.set_defaults(verb_run=does)


def _add_settings(parser: argparse.ArgumentParser, preset: str | None) -> None:
    """Declare the preset, the data, and the settings that replace the preset's."""
    names = f"presets: {', '.join(preset_names())}; or a .toml file"
    parser.add_argument("--preset", default=preset, help=names)
    parser.add_argument("--data", choices=NAMES, help="instead of the preset's")
    parser.add_argument("--path", type=Path, help="of the data, if they are yours")
    for name, (kind, about) in _SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, help=f"{about}, instead of the preset's")
    inside = "inside the couplings' networks; default: float32"
    parser.add_argument("--precision", choices=PRECISIONS, help=inside)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for."""
    status: int = arguments.verb_run(arguments)
    return status


def _changes(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("data", *_SETTINGS, "precision")}


def _require_device(device: str) -> None:
    """Raise ValueError before the work, where PyTorch cannot use a device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise CommandError(f"--device: PyTorch cannot use {device!r} here: {first}") from None


def _train(arguments: argparse.Namespace) -> int:
    _require_device(arguments.device)
    preset = load_preset(arguments.preset)
    recipe = preset.recipe(arguments.mixing, arguments.seed, **_changes(arguments))
    if arguments.dry_run:
        return _dry_run(recipe, arguments)
    name = f"{arguments.mixing}-seed{recipe.seed}"
    folder = arguments.out or Path(f"invconv-density-{preset.name}") / name
    data, console = load(recipe.data, arguments.path), _console()
    console.print(f"{_words(recipe)}: {len(data)} tiles an epoch", highlight=False)
    with stopping() as asked:
        run = train(
            recipe,
            data,
            folder,
            report=Lines(console, name, bar=console.is_terminal),
            should_stop=lambda: bool(asked),
            device=arguments.device,
            bar=console.is_terminal,
        )
    if run.step < run.steps:
        console.print(f"stopped after {run.step} of {run.steps} steps; the same command goes on")
        return 130
    if run.history:
        ended = f"{run.history[-1]['held_out']:.4f} bits/dim of the {data.watched} tiles"
        console.print(f"{folder}: {ended}", markup=False)
    return 0


def _console() -> Console:
    """Return the terminal, or nothing for all but the first of torchrun's processes."""
    console = printing.console()
    console.quiet = os.environ.get("RANK", "0") != "0"
    return console


def _dry_run(recipe: Recipe, arguments: argparse.Namespace) -> int:
    noise = stand_in(recipe.data) if arguments.path is None else None
    found = dry_run.measure(recipe, noise or load(recipe.data, arguments.path), arguments.device)
    images, console = "noise of the size of its images" if noise else "its images", _console()
    console.print(f"{_words(recipe)}, on {images}", highlight=False)
    console.print(found.table())
    return 0


def _words(recipe: Recipe) -> str:
    return f"{recipe.preset}, {recipe.architecture.mixing}, seed {recipe.seed}"


def _sample(arguments: argparse.Namespace) -> int:
    if arguments.count < 1 or not 0 <= arguments.temperature < math.inf:
        raise CommandError("expected a --count of at least 1 and a --temperature of at least 0")
    _require_device(arguments.device)
    stored, model = evaluation.restore(arguments.of, arguments.device)
    generator = torch.Generator().manual_seed(arguments.seed)
    samples = model.sample(arguments.count, arguments.temperature, generator=generator)
    found = leaving.count(samples)
    finite = found.samples - found.non_finite
    grid.write(samples, arguments.out, bright=arguments.stretch)
    printing.console().print(
        f"{arguments.out}: {arguments.count} samples of {_words(stored.recipe)}, step "
        f"{stored.step}; {finite} are finite, {finite - found.outside} in range everywhere",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.count < 1:
        raise CommandError(f"--count: expected at least 1, got {arguments.count}")
    _require_device(arguments.device)
    stored, model = evaluation.restore(arguments.of, arguments.device)
    data = load(stored.recipe.data, arguments.path)
    if data.fingerprint != stored.data:
        raise CommandError(f"--path: {stored.recipe.data} there has other images than the run had")
    bits = evaluation.bits_per_dim(model, data)
    table = Table(title=f"{_words(stored.recipe)}, step {stored.step} of {stored.steps}")
    for name in ("", "of", "in range", "back within the bound", "largest error", "bound"):
        table.add_column(name, justify="left" if not name else "right")
    trips = evaluation.round_trips(
        model, data, arguments.count, arguments.count, arguments.temperature
    )
    for name, trip in trips.items():
        shown = ["–" if v is None else f"{v:.1e}" for v in (trip.error, trip.bound)]
        counts = map(str, (trip.count, trip.in_range, trip.in_range_within))
        table.add_row(name, *counts, *shown)
    console = printing.console()
    console.print(table)
    error, samples = standard_error(bits), trips["samples"]
    spread = "one of them" if error is None else f"± {error:.4f} over the images"
    console.print(
        f"{bits.mean():.4f} bits/dim of {len(bits)} test images ({spread}); "
        f"{samples.non_finite} samples are not finite, "
        f"{samples.outside} leave the range somewhere, of which "
        f"{samples.outside_within} are back within their bound",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    preset = load_preset(arguments.preset or ("hubble-quick" if arguments.quick else "hubble"))
    changes = _changes(arguments)
    with as_command_errors():
        for mixing in arguments.mixings:
            choice("--mixings", mixing, MIXINGS)
    one = changes.pop("learning_rate") or preset.training["learning_rate"]
    rates = numbers("--learning-rates", arguments.learning_rates, float)
    if not rates:
        rates = (one,) if arguments.quick or arguments.learning_rate else around(one)
    comparison = Comparison(
        preset=preset,
        changes=changes,
        seeds=numbers("--seeds", arguments.seeds or ("0" if arguments.quick else "012"), int),
        rates=rates,
        path=arguments.path,
        folder=arguments.out or Path(f"invconv-density-{preset.name}"),
        workers=arguments.workers,
        quick=arguments.quick,
        mixings=arguments.mixings,
    )
    if comparison.workers < 1 or not comparison.seeds or not comparison.mixings:
        raise CommandError("expected at least one of --workers, of --seeds and of --mixings")
    console = printing.console()
    data = load(comparison.jobs({})[0].recipe.data, comparison.path)
    if len(rates) > 1:
        data.held_out("validation")  # raises where there is none to choose by
    comparison.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM interrupts, as Ctrl-C does
    try:
        found = perform(comparison, data, console)
    except KeyboardInterrupt:
        found = None
    if found is None:
        console.print("interrupted: the same command goes on from here")
        return 130
    show(found, comparison.folder, console)
    return 0
