"""A run's recipe, the flow that it describes, presets of recipes in TOML, and a run's checkpoint.

The flow of the paper is `invconv_torch.flows.Glow`, whose module lists how it differs from the code
of the paper's authors (github.com/ehoogeboom/emerging). Their training differs in three points:

- The second decay of their Adamax depends on the steps of an epoch; here it is PyTorch's, 0.999.
- They report the parameters as they are at the best test loss; here Polyak's average at the end.
- Galaxies: they move 64 x 64 pixels by parts of a pixel and mirror the edges; here 32 x 32 are
  moved by whole pixels, and the edges are repeated.
"""

import importlib
import pickle
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import torch

from invconv.arrays.errors import CommandError, as_command_errors
from invconv.arrays.validation import choice, is_number, positive_int
from invconv.flows.architecture import GlowArchitecture, mixing_words
from invconv_benchmarks.density.peers import PEERS
from invconv_torch.flows import Glow, Multiscale

CHECKPOINT = "checkpoint.ckpt"  # a file of Lightning with a run's state and its description
KEY = "invconv-density"  # the name of the description in that file
PRECISIONS = ("float32", "bfloat16")
_UNITS = {"steps": "epochs", "warm_up_steps": "warm_up_epochs"}  # one replaces the other
_UNITS |= {epochs: steps for steps, epochs in _UNITS.items()}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run: everything that its numbers depend on but the images themselves.

    Mixing to scale_floor are those of `invconv_torch.flows.Glow`. The mixing may also be one of
    `PEERS`, or "module:word", the word of a class that the module defines. `imported` imports it;
    the recipe itself does not, since it may come from a stranger's checkpoint.
    """

    preset: str
    data: str
    mixing: str
    levels: int
    depth: int
    width: int
    kernel_size: int = 3
    scale_floor: float = 0.5
    seed: int = 0  # seeds parameters, order, noise and flips
    batch: int  # images per step, of all processes together
    learning_rate: float  # of Adamax, once it has warmed up
    steps: int = 0  # 0 if epochs are given, and the other way round
    epochs: int = 0
    warm_up_steps: int = 0  # the learning rate grows from 0; 0 if epochs are given
    warm_up_epochs: int = 0
    average: float = 0.995  # a = average a + (1 - average) p after a step; early ones weigh less
    initial_images: int = 256  # actnorm is initialized with them
    precision: str = "float32"  # of the networks of couplings and priors; all else is in float32

    def __post_init__(self) -> None:
        choice("precision", self.precision, PRECISIONS)
        for name in ("preset", "data", "mixing"):
            if not isinstance(value := getattr(self, name), str):
                raise ValueError(f"{name}: expected text, got {value!r}")
        for name in ("batch", "initial_images"):
            positive_int(name, getattr(self, name))
        for name in ("seed", "steps", "epochs", "warm_up_steps", "warm_up_epochs"):
            if getattr(self, name) != 0:
                positive_int(name, getattr(self, name))
        if self.warm_up_steps and self.warm_up_epochs:
            given = f"{self.warm_up_steps} and {self.warm_up_epochs}"
            raise ValueError(f"expected warm_up_steps or warm_up_epochs, not both, got {given}")
        if bool(self.steps) == bool(self.epochs):
            given = f"{self.steps} and {self.epochs}"
            raise ValueError(f"expected steps or epochs, one of the two, got {given}")
        for name in ("learning_rate", "average"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < 1:
                raise ValueError(f"{name}: expected a number from 0 to below 1, got {value!r}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe with these values; wrong values raise CommandError."""
        with as_command_errors():
            return cls(**values)

    def length(self, epoch: int) -> int:
        """Return the number of steps, for data with so many tiles per epoch."""
        return self.steps or -(-self.epochs * epoch // self.batch)

    def warm_up(self, step: int, epoch: int) -> float:
        """Return the share of the learning rate that a step has, counted from 0."""
        length = self.warm_up_steps or -(-self.warm_up_epochs * epoch // self.batch)
        return min(1.0, (step + 1) / max(1, length))

    def flow(self, image_shape: tuple[int, int, int]) -> Multiscale:
        """Return the flow of images (C, H, W), its parameters drawn from the seed, on the CPU."""
        names = ("levels", "depth", "width", "scale_floor", "kernel_size")
        design = {name: getattr(self, name) for name in names}
        with as_command_errors(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if peer := PEERS.get(self.mixing):
                like = GlowArchitecture(image_shape, mixing=None, **design)
                return Multiscale(image_shape, peer(like))
            return Glow(image_shape, mixing=self.mixing.rpartition(":")[2], **design)


def imported(mixing: str, option: str = "--mixing") -> None:
    """Import the module of "module:word"; raise unless the word is a row's."""
    module, _, word = mixing.rpartition(":")
    with as_command_errors():
        if module:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise CommandError(f"{option} {mixing}: {error}") from None
        choice(option, word, (*mixing_words(), *PEERS))


@dataclass(frozen=True)
class Preset:
    """Settings of runs but for mixing layer and seed, and the paper's bits/dim by mixing layer."""

    name: str
    settings: Mapping[str, Any]
    paper: Mapping[str, str]

    def recipe(self, mixing: str, seed: int = 0, **changes: Any) -> Recipe:
        """Return the recipe for a mixing layer, with changes (but None) such as ``width=64``."""
        changes = {name: value for name, value in changes.items() if value is not None}
        values = {"preset": self.name, "mixing": mixing, "seed": seed}
        return Recipe.of(_changed(self.settings, values | changes))


def presets() -> dict[str, dict[str, Any]]:
    """Return the presets that come with this package, as TOML has them."""
    text = files(__package__).joinpath("presets.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def load_preset(name: str) -> Preset:
    """Return a preset of ours by its name, or any by the path of a TOML file."""
    known, values = presets(), dict[str, Any](like=name)
    if name.endswith(".toml"):
        try:
            values = tomllib.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CommandError(f"--preset {name}: no file of TOML: {error}") from None
    while "like" in values:
        other = values.pop("like")
        if other not in list(known):  # it may be of any type
            expected = f"expected one of {', '.join(known)}, or the path of a .toml file"
            raise CommandError(f"--preset: {expected}, got {other!r}")
        values = _changed(known[other], values)
    if own := [option for option in ("preset", "mixing", "seed") if option in values]:
        raise CommandError(f"--preset {name}: expected --{own[0]} as an option, got it in the file")
    paper = values.pop("paper", {})
    if not isinstance(paper, dict):
        raise CommandError(f"--preset {name}: paper: expected a table by mixing layer, got {paper}")
    preset = Preset(Path(name).stem, values, {row: str(bits) for row, bits in paper.items()})
    preset.recipe("plain")  # raises where a value is wrong
    return preset


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    gone = {_UNITS[name] for name in changes if name in _UNITS}
    return {n: v for n, v in values.items() if n not in gone} | dict(changes)


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` of ``steps``: its images' fingerprint, and the averaged parameters."""

    recipe: Recipe
    image_shape: tuple[int, int, int]
    data: str
    step: int
    steps: int
    history: list[dict[str, Any]]
    average: Mapping[str, torch.Tensor]

    def difference(self, recipe: Recipe, data: str) -> str:
        """Return why no run of a recipe on data of a fingerprint can go on from here, or ""."""
        then, now = asdict(self.recipe), asdict(recipe) | {"preset": self.recipe.preset}
        names = [name for name in now if then[name] != now[name]]
        changes = ", ".join(f"{n} was {then[n]!r} and is {now[n]!r}" for n in names)
        images = "" if self.data == data else "the checkpoint is of a run on other images"
        return f"the checkpoint is of another run: {changes}" if changes else images


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. No code in it is run, and a file with a damaged byte is refused."""
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():  # PyTorch itself does not check the checksums
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise CommandError(f"{path}: there is no such checkpoint") from None
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise CommandError(
            f"{path}: no whole checkpoint: {error!s:.300}; delete it to begin anew, or restore it"
        ) from None
    try:
        run, state = dict(content[KEY]), content["state_dict"].items()
        run["recipe"] = Recipe.of(run["recipe"])
        average = {n.removeprefix("average."): t for n, t in state if n.startswith("average.")}
        return Checkpoint(**run, average=average)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CommandError(f"{path}: no checkpoint of a density model: {error!s:.300}") from None
