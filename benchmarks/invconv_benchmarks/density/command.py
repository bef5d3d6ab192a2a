"""``invconv density``: train, sample from, evaluate and compare density models of images."""

import argparse
import dataclasses
import itertools
import math
import os
import signal
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.markdown import Markdown
from skimage.util import montage

from invconv.arrays.errors import CommandError
from invconv.arrays.validation import LARGEST
from invconv.files.container import replacing
from invconv.flows.architecture import mixing_words
from invconv_benchmarks.density import evaluation
from invconv_benchmarks.density.comparison import markdown, perform
from invconv_benchmarks.density.data import NAMES, Dataset, load
from invconv_benchmarks.density.peers import PEERS
from invconv_benchmarks.density.recipe import PRECISIONS, Recipe, imported, load_preset, presets
from invconv_benchmarks.density.rows import ROWS, Comparison, around
from invconv_benchmarks.density.training import stopping, train
from invconv_benchmarks.options import numbers
from invconv_benchmarks.report.figures import stretch
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
_QUICK = 100  # steps, at most
_DEFAULT = "default: %(default)s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    metavar = "train|sample|evaluate|compare"
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=metavar)
    mixings = ", ".join((*mixing_words(), *PEERS))
    mixings += ", or MODULE:WORD, of a class of yours with this mixing"
    train = verbs.add_parser("train", help="train one model, or go on where it stopped")
    train.add_argument("--mixing", default="emerging", help=f"{mixings} ({_DEFAULT})")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="cpu", help=f"such as cuda ({_DEFAULT})")
    about = "the folder of the checkpoint (default: invconv-density-PRESET-…)"
    train.add_argument("--out", type=Path, help=about)
    dry = "write nothing: print parameters, and the time from a few steps"
    train.add_argument("--dry-run", action="store_true", help=dry)
    compare = verbs.add_parser("compare", help="train all flows on equal terms")
    compare.add_argument("--quick", action="store_true", help=f"one seed, {_QUICK} steps at most")
    compare.add_argument("--seeds", type=words, help="such as 0,1,2 (the default; with --quick: 0)")
    about = """with which each row's sweep begins, such as 1e-2,3e-2,1e-1; it goes on until the best
        is not the outermost (default: the preset's and its neighbours; with --quick or
        --learning-rate: that one alone)"""
    compare.add_argument("--learning-rates", type=words, default=(), help=about)
    about = f"such as plain,emerging, of {mixings}"
    compare.add_argument("--mixings", type=words, default=ROWS, help=about)
    compare.add_argument("--workers", type=int, default=2, help=f"processes ({_DEFAULT})")
    compare.add_argument("--out", type=Path, help="the folder of the runs and the result")
    for verb, does, preset in (train, _train, "hubble"), (compare, _compare, None):
        names = f"presets: {', '.join(presets())}; or a .toml file"
        verb.add_argument("--preset", default=preset, help=names)
        about = f"{', '.join(NAMES)}, or the path of a folder or zip of images"
        verb.add_argument("--data", help=f"instead of the preset's: {about}")
        verb.add_argument("--path", type=Path, help="of the data, if they are yours")
        for name, (kind, about) in _SETTINGS.items():
            option = f"--{name.replace('_', '-')}"
            verb.add_argument(option, type=kind, help=f"{about}, instead of the preset's")
        inside = "inside the couplings' networks; default: float32"
        verb.add_argument("--precision", choices=PRECISIONS, help=inside)
        verb.set_defaults(verb_run=does)
    sample = verbs.add_parser("sample", help="draw samples from a checkpoint into a picture")
    sample.add_argument("--seed", type=int, default=0, help="of the noise")
    sample.add_argument("--stretch", action="store_true", help="brighten dark pixels")
    sample.add_argument("--out", type=Path, default=Path("samples.png"))
    evaluate = verbs.add_parser("evaluate", help="bits/dim of the test set, and round trips")
    evaluate.add_argument("--path", type=Path, help="of the data, if they are yours")
    returning = "images, and samples, that go and return"
    for verb, does, count in (sample, _sample, "samples"), (evaluate, _evaluate, returning):
        verb.add_argument("of", type=Path, help="the folder of a run, or its checkpoint")
        about = "MODULE:WORD of the run, if the class is yours: the module is imported"
        verb.add_argument("--mixing", help=about)
        verb.add_argument("--device", default="cpu", help=f"such as cuda ({_DEFAULT})")
        about = f"of the noise ({_DEFAULT})"
        verb.add_argument("--temperature", type=float, default=1.0, help=about)
        verb.add_argument("--count", type=int, default=64, help=f"{count} ({_DEFAULT})")
        verb.set_defaults(verb_run=does)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for."""
    options = vars(arguments)
    if options.get("data") not in (None, *NAMES) and arguments.path is None:
        if not Path(arguments.data).exists():
            raise CommandError(
                f"--data: expected {', '.join(NAMES)}, or a path of images, got {arguments.data}"
            )
        arguments.data, arguments.path = "folder", Path(arguments.data)
    try:
        torch.empty(0, device=options.get("device", "cpu"))
    except (RuntimeError, AssertionError) as error:
        cause = f"{arguments.device!r} here: {str(error).splitlines()[0]}"
        raise CommandError(f"--device: PyTorch cannot use {cause}") from None
    if options.get("count", 1) < 1 or not 0 <= options.get("temperature", 0) < math.inf:
        raise CommandError("expected a --count of at least 1 and a --temperature of at least 0")
    if not 0 <= (seed := options.get("seed", 0)) <= LARGEST:
        raise CommandError(f"--seed: expected a number from 0 to {LARGEST}, got {seed}")
    return int(arguments.verb_run(arguments))


def _changes(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("data", *_SETTINGS, "precision")}


def _say(text: str) -> None:
    """Print a line as it is, in the first of torchrun's processes."""
    if os.environ.get("RANK", "0") == "0":
        printing.console().print(text, highlight=False, markup=False, soft_wrap=True)


def _train(arguments: argparse.Namespace) -> int:
    imported(arguments.mixing)
    preset = load_preset(arguments.preset)
    recipe = preset.recipe(arguments.mixing, arguments.seed, **_changes(arguments))
    data = load(recipe.data, arguments.path)
    if arguments.dry_run:
        return _dry_run(recipe, data, arguments.device)
    name = f"{arguments.mixing}-seed{recipe.seed}"
    folder = arguments.out or Path(f"invconv-density-{preset.name}") / name
    _say(f"{_words(recipe)}: {len(data)} tiles an epoch")
    on_terminal = printing.console().is_terminal
    with stopping() as asked:
        how = {"device": arguments.device, "bar": on_terminal, "say": str if on_terminal else _say}
        run = train(recipe, data, folder, should_stop=lambda: bool(asked), **how)
    if run.step < run.steps:
        _say(f"stopped after {run.step} of {run.steps} steps; the same command goes on")
        return 130
    if run.history:
        _say(f"{folder}: {run.history[-1]['held_out']:.4f} bits/dim of the {data.watched} tiles")
    return 0


def _dry_run(recipe: Recipe, data: Dataset, device: str) -> int:
    few, steps = dataclasses.replace(recipe, steps=6, epochs=0), recipe.length(len(data))
    with tempfile.TemporaryDirectory() as folder:
        run = train(few, data, Path(folder), device=device)
    seconds = statistics.median(entry["seconds_per_step"] for entry in run.history)
    parameters = sum(p.numel() for p in run.flow.parameters())
    whole = f"{steps * seconds / 3600:.3g} h for {steps:,} steps"
    _say(f"{_words(recipe)}: {parameters:,} parameters, about {seconds:.3g} s a step, {whole}")
    return 0


def _words(recipe: Recipe) -> str:
    return f"{recipe.preset}, {recipe.mixing}, seed {recipe.seed}"


def _sample(arguments: argparse.Namespace) -> int:
    if arguments.out.suffix != ".png":
        raise CommandError(f"--out: expected a name that ends in .png, got {arguments.out}")
    stored, model = evaluation.restore(arguments.of, arguments.device, arguments.mixing)
    generator = torch.Generator().manual_seed(arguments.seed)
    samples = model.sample(arguments.count, arguments.temperature, generator=generator)
    tiles, columns = evaluation.pixels(model, samples), math.ceil(math.sqrt(len(samples)))
    shape = math.ceil(len(tiles) / columns), columns
    picture = montage(tiles, fill=[0] * tiles.shape[1], grid_shape=shape, channel_axis=1)
    if arguments.stretch:
        picture = (255 * stretch(picture / 255)).astype(np.uint8)
    with replacing(arguments.out) as part:
        Image.fromarray(picture.squeeze()).save(part, format="PNG")
    _say(f"{arguments.out}: {len(samples)} samples of {_words(stored.recipe)}, step {stored.step}")
    return 0


@torch.no_grad()  # type: ignore[untyped-decorator]
def _evaluate(arguments: argparse.Namespace) -> int:
    stored, model = evaluation.restore(arguments.of, arguments.device, arguments.mixing)
    data = load(stored.recipe.data, arguments.path)
    if data.fingerprint != stored.data:
        raise CommandError(f"--path: {stored.recipe.data} there has other images than the run had")
    bits = evaluation.bits_per_dim(model, data)
    error = ""
    if len(bits) > 1:
        error = f" (± {np.std(bits, ddof=1) / len(bits) ** 0.5:.4f} over the images)"
    _say(
        f"{_words(stored.recipe)}, step {stored.step} of {stored.steps}: {bits.mean():.4f} "
        f"bits/dim of {len(bits)} test images{error}"
    )
    found = evaluation.round_trips(model, data, arguments.count, arguments.temperature)
    off = ", off by {:.1e} at most, {:.1e} mean"
    images, noise = (off.format(*e) if e else "" for e in (found.image_errors, found.noise_errors))
    outside = math.nan if found.outside is None else found.outside
    _say(f"{min(found.count, len(bits))} images come back from their noise{images}")
    _say(
        f"of {found.count} samples {found.not_finite} are not finite, the others come back to "
        f"their noise{noise}; {found.in_range} are in range everywhere, {outside:.2%} of the "
        "numbers are not"
    )
    _say(f"diagnose leaves {found.digits:.1f} digits to {found.layer}, the fewest of all layers")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    preset = load_preset(arguments.preset or ("hubble-quick" if arguments.quick else "hubble"))
    changes = _changes(arguments)
    if arguments.quick and changes["steps"] is None:
        changes["steps"] = min(_QUICK, preset.settings.get("steps") or _QUICK)
    for mixing in arguments.mixings:
        imported(mixing, "--mixings")
    given = changes.pop("learning_rate")
    rates = numbers("--learning-rates", arguments.learning_rates, float)
    if rates and given is not None:
        raise CommandError("expected --learning-rate or --learning-rates, got both")
    if not rates:
        one = preset.settings["learning_rate"] if given is None else given
        rates = around(one) if given is None and not arguments.quick else (one,)
    seeds = numbers("--seeds", arguments.seeds or ("0" if arguments.quick else "012"), int)
    folder = arguments.out or Path(f"invconv-density-{preset.name}")
    runs = Comparison(preset, changes, seeds, rates, arguments.path, folder, arguments.mixings)
    for values in itertools.product(arguments.mixings, seeds, rates):
        runs.recipe(*values)  # raises if a value is wrong
    if arguments.workers < 1:
        raise CommandError(f"--workers: expected at least 1, got {arguments.workers}")
    data = load(changes["data"] or preset.settings["data"], arguments.path)
    if len(rates) > 1:
        data.held_out("validation")  # raises if there are no tiles to choose by
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"training in {folder}: interrupted, the same command goes on from there")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM interrupts, as Ctrl-C does
    try:
        result = perform(runs, data, arguments.workers)
    except KeyboardInterrupt:
        _say("interrupted: the same command goes on from here")
        return 130
    printing.console().print(Markdown("\n".join(markdown(result))))
    _say(f"{folder}/result.json and comparison.jpg: {result['seconds']:.0f} s")
    return 0
