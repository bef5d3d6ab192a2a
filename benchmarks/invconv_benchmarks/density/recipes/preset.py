"""Presets: TOML files with the settings of a run, for every mixing layer."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.models.architecture import Architecture, from_table
from invconv_benchmarks.density.recipes.recipe import Recipe

_UNITS = {"steps": "epochs", "warm_up_steps": "warm_up_epochs"}  # one takes the other's place
_UNITS |= {epochs: steps for steps, epochs in _UNITS.items()}


@dataclass(frozen=True)
class Preset:
    """A file of settings.

    Attributes
    ----------
    name : str
    about : str
        The comment at its top.
    data : str
    architecture, training : mapping
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
        names = {field.name for field in dataclasses.fields(Architecture)}
        own = {name: changes.pop(name) for name in names & set(changes)}
        architecture = {"mixing": mixing, **self.architecture, **own}
        training = _changed(self.training, changes)
        values = {"preset": self.name, "data": data, "seed": seed}
        return Recipe.from_dict({**values, "architecture": architecture, "training": training})


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
    if "like" in values:
        values = _like(load_preset(values.pop("like")), values)
    about = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    found = {"paper": {}, **values, "name": Path(name).stem, "about": about}
    preset = from_table(Preset, name, found)
    for mixing, bits in preset.paper.items():
        if not isinstance(bits, str):
            raise CommandError(
                f'paper: {mixing}: expected bits/dim as printed, "3.46", got {bits!r}'
            )
    preset.recipe("plain")  # raises where a value is wrong
    return preset


def _like(other: Preset, values: dict[str, Any]) -> dict[str, Any]:
    """Return another preset's values, those of a file in their place; its paper's are none."""
    architecture = {**other.architecture, **values.pop("architecture", {})}
    training = _changed(other.training, values.pop("training", {}))
    return {"data": other.data, **values, "architecture": architecture, "training": training}


def _changed(training: Any, changes: Mapping[str, Any]) -> Any:
    """Return the values of a training, with others in their place, or in their unit's."""
    if not isinstance(training, Mapping):
        return training
    gone = {_UNITS[name] for name in changes if name in _UNITS}
    return {n: v for n, v in training.items() if n not in gone} | dict(changes)
