"""Reading a run's checkpoint: a file of Lightning, in which a run is described beside its state.

No generator's state is needed, as batches and noise are functions of the seed and the step.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.recipes.recipe import Recipe

NAME = "checkpoint.ckpt"
KEY = "invconv-density"  # of the description in the file

Tensor: TypeAlias = torch.Tensor


@dataclass(frozen=True)
class Checkpoint:
    """A run as a checkpoint has it.

    Attributes
    ----------
    recipe : Recipe
    image_shape : tuple of int
    data : str
        The fingerprint of the data set.
    step, steps : int
        How many are done, and how many there will be.
    history : list of dict
        The measurements on the way.
    average : mapping of str to tensor
        The averaged parameters.
    """

    recipe: Recipe
    image_shape: tuple[int, int, int]
    data: str
    step: int
    steps: int
    history: list[dict[str, Any]]
    average: Mapping[str, Tensor]


def read(path: Path) -> Checkpoint:
    """Read a checkpoint. No code in it is run, and a file with a damaged byte is refused.

    Raises
    ------
    ValueError
        If there is none, or it is damaged: the message says how to go on.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():  # PyTorch itself does not look at the checksums
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise CommandError(f"{path}: there is no such checkpoint") from None
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise CommandError(
            f"{path}: no whole checkpoint: {error!s:.300}; delete it to begin anew, or restore it"
        ) from None
    try:
        run = dict(content[KEY])
        state = content["state_dict"].items()
        average = {n.removeprefix("average."): t for n, t in state if n.startswith("average.")}
        run |= {"recipe": Recipe.from_dict(run["recipe"]), "average": average}
        run["image_shape"] = tuple(run["image_shape"])
        del run["pending"]
        return Checkpoint(**run)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CommandError(f"{path}: no checkpoint of a density model: {error!s:.300}") from None


def require_same(stored: Checkpoint, recipe: Recipe, data: str) -> None:
    """Raise unless a run of this recipe on the data of this fingerprint can go on from there."""
    then, now = stored.recipe.settings, recipe.settings
    if then != now:
        flat = [{**s, **s["architecture"], **s["training"]} for s in (then, now)]
        names = (n for n in flat[1] if n not in ("architecture", "training"))
        found = [(n, *(f.get(n) for f in flat)) for n in names]
        changes = ", ".join(f"{n} was {a!r} and is {b!r}" for n, a, b in found if a != b)
        raise CommandError(f"the checkpoint is of another run: {changes}")
    if stored.data != data:
        raise CommandError("the checkpoint is of a run on other images")
