"""The recipe of a run: data, architecture, training and seed. Presets are TOML files."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.models.architecture import Architecture

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Training:
    """How a model is trained: Adamax, a linear warm-up, an average of the parameters.

    Attributes
    ----------
    batch : int
        Images a step, of all processes together.
    learning_rate : float
    steps, epochs : int
        How long, in one of the two units; the other is 0.
    warm_up_steps, warm_up_epochs : int
        During which the learning rate grows from 0; one of the two at most.
    average : float
        Polyak's: a = average a + (1 - average) p after each step, with less weight on a while
        there were few steps.
    initial_images : int
        From which actnorm gets its start.
    precision : str
        "float32", or "bfloat16" inside the networks of the couplings and priors: the invertible
        layers keep the dtype of their parameters, float32.
    """

    batch: int
    learning_rate: float
    steps: int = 0
    epochs: int = 0
    warm_up_steps: int = 0
    warm_up_epochs: int = 0
    average: float = 0.995
    initial_images: int = 256
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("batch", "initial_images"):
            _integer(name, getattr(self, name), 1)
        for unit in ("steps", "epochs"):
            _integer(unit, getattr(self, unit), 0)
            _integer(f"warm_up_{unit}", getattr(self, f"warm_up_{unit}"), 0)
        if bool(self.steps) == bool(self.epochs):
            raise CommandError(
                f"expected steps or epochs, one of the two, got {self.steps} and {self.epochs}"
            )
        if self.warm_up_steps and self.warm_up_epochs:
            raise CommandError("expected warm_up_steps or warm_up_epochs, not both")
        if not _is_number(self.learning_rate) or not 0 < self.learning_rate < 1:
            raise CommandError(
                f"learning_rate: expected a number above 0 and below 1, got {self.learning_rate!r}"
            )
        if not _is_number(self.average) or not 0 <= self.average < 1:
            raise CommandError(
                f"average: expected a number of at least 0 and below 1, got {self.average!r}"
            )
        if self.precision not in PRECISIONS:
            raise CommandError(
                f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )

    def length(self, epoch: int) -> int:
        """Return the number of steps, for data with so many tiles an epoch."""
        return self.steps or self._in_steps(self.epochs, epoch)

    def warm_up(self, step: int, epoch: int) -> float:
        """Return the share of the learning rate that a step has, counted from 0."""
        length = self.warm_up_steps or self._in_steps(self.warm_up_epochs, epoch)
        return min(1.0, (step + 1) / max(1, length))

    def _in_steps(self, epochs: int, epoch: int) -> int:
        return -(-epochs * epoch // self.batch)


@dataclass(frozen=True)
class Recipe:
    """A run: everything that its numbers depend on but the images themselves.

    Attributes
    ----------
    preset : str
        From which it was made; its name alone.
    data : str
        The name of the data set.
    architecture : Architecture
    training : Training
    seed : int
        Of parameters, order, noise and flips.
    """

    preset: str
    data: str
    architecture: Architecture
    training: Training
    seed: int = 0

    def __post_init__(self) -> None:
        _integer("seed", self.seed, 0)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that its numbers depend on, of which JSON can be made."""
        return {
            "data": self.data,
            "architecture": self.architecture.to_dict(),
            "training": dataclasses.asdict(self.training),
            "seed": self.seed,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name, of which JSON can be made."""
        return {"preset": self.preset, **self.settings}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Undo `to_dict`.

        Raises
        ------
        ValueError, TypeError
            If a name is unknown or missing, or a value is out of range or of another type.
        """
        _names("recipe", values, {field.name for field in dataclasses.fields(cls)})
        architecture = Architecture.from_dict(_table("architecture", values["architecture"]))
        training = Training(**_training(_table("training", values["training"])))
        for name in ("preset", "data"):
            if not isinstance(values[name], str):
                raise TypeError(f"{name}: expected a name, got {values[name]!r}")
        return cls(values["preset"], values["data"], architecture, training, values["seed"])


@dataclass(frozen=True)
class Preset:
    """A file of settings, for every mixing layer.

    Attributes
    ----------
    name : str
    about : str
        The comment at its top.
    paper : mapping of str to str
        The paper's bits/dim by mixing, as printed there.
    """

    name: str
    about: str
    data: str
    architecture: Mapping[str, Any]
    training: Mapping[str, Any]
    paper: Mapping[str, str]

    def recipe(self, mixing: str, seed: int = 0, **changes: Any) -> Recipe:
        """Return the run of a mixing layer.

        Parameters
        ----------
        mixing : str
        seed : int
        **changes
            Other values for ``data`` or for names of the architecture or training, such as
            ``width=64``; None changes nothing. Steps replace epochs, and the other way round.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        data = changes.pop("data", self.data)
        architecture, training = {"mixing": mixing, **self.architecture}, dict(self.training)
        for one, other in (("steps", "epochs"), ("warm_up_steps", "warm_up_epochs")):
            for name, replaced in ((one, other), (other, one)):
                if name in changes:
                    training.pop(replaced, None)
        architecture_names = {field.name for field in dataclasses.fields(Architecture)}
        for name, value in changes.items():
            (architecture if name in architecture_names else training)[name] = value
        values = {"preset": self.name, "data": data, "seed": seed}
        return Recipe.from_dict(values | {"architecture": architecture, "training": training})


def preset_names() -> list[str]:
    """Return the names of the presets that come with this package."""
    there = files(__package__).joinpath("presets").iterdir()
    return sorted(entry.name[:-5] for entry in there if entry.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """Return a preset of ours by its name, or any by the path of a TOML file.

    Raises
    ------
    ValueError
        If there is none, it is no TOML, or has unknown or missing names.
    """
    path: Any = Path(name)
    if not name.endswith(".toml"):
        if name not in preset_names():
            raise CommandError(
                f"--preset: expected one of {', '.join(preset_names())}, or the path of a .toml "
                f"file, got {name!r}"
            )
        path = files(__package__).joinpath("presets", f"{name}.toml")
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise CommandError(f"--preset: there is no file {name}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{name}: no TOML: {error}") from None
    values.setdefault("paper", {})
    _names(name, values, {"data", "architecture", "training", "paper"})
    comment = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    tables = {key: _table(key, values[key]) for key in ("architecture", "training", "paper")}
    preset = Preset(Path(name).stem, " ".join(comment), values["data"], **tables)
    for mixing, bits in preset.paper.items():
        if not isinstance(bits, str):
            raise CommandError(
                f'paper: {mixing}: expected bits/dim as printed, "3.46", got {bits!r}'
            )
    preset.recipe("plain")  # raises where a value is wrong
    return preset


def _training(values: Mapping[str, Any]) -> Mapping[str, Any]:
    known = [field.name for field in dataclasses.fields(Training)]
    if unknown := set(values) - set(known):
        raise CommandError(f"training: expected some of {', '.join(known)}, got {sorted(unknown)}")
    for name in ("batch", "learning_rate"):
        if name not in values:
            raise CommandError(f"training: {name} is missing")
    return values


def _names(what: str, values: Mapping[str, Any], known: set[str]) -> None:
    if set(values) != known:
        raise CommandError(f"{what}: expected {sorted(known)}, got {sorted(values)}")


def _table(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name}: expected names with values, got {value!r:.80}")
    return value


def _integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CommandError(f"{name}: expected an integer of at least {least}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
