"""Reading a run's checkpoint: a file of Lightning, in which a run is described beside its state."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.recipes.recipe import Recipe

NAME = "checkpoint.ckpt"
KEY = "invconv-density"  # of the description in the file


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

    def require_same(self, recipe: Recipe, data: str) -> None:
        """Raise unless a run of this recipe on the data of this fingerprint can go on from here."""
        then, now = asdict(self.recipe), asdict(recipe) | {"preset": self.recipe.preset}
        if then != now:
            names = [name for name in now if then[name] != now[name]]
            changes = ", ".join(f"{n} was {then[n]!r} and is {now[n]!r}" for n in names)
            raise CommandError(f"the checkpoint is of another run: {changes}")
        if self.data != data:
            raise CommandError("the checkpoint is of a run on other images")


def read(path: Path) -> Checkpoint:
    """Read a checkpoint. No code in it is run, and a file with a damaged byte is refused."""
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
        run, state = dict(content[KEY]), content["state_dict"].items()
        run["recipe"] = Recipe.of(run["recipe"])
        average = {n.removeprefix("average."): t for n, t in state if n.startswith("average.")}
        return Checkpoint(**run, average=average)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CommandError(f"{path}: no checkpoint of a density model: {error!s:.300}") from None
