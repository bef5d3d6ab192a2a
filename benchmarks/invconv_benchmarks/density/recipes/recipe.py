"""The recipe of a run: data, architecture, training and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from invconv.arrays.errors import CommandError
from invconv_benchmarks.density.models.architecture import Architecture, from_table

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
        for name in ("steps", "epochs", "warm_up_steps", "warm_up_epochs"):
            _integer(name, getattr(self, name), 0)
        if bool(self.steps) == bool(self.epochs):
            given = f"{self.steps} and {self.epochs}"
            raise CommandError(f"expected steps or epochs, one of the two, got {given}")
        if self.warm_up_steps and self.warm_up_epochs:
            raise CommandError("expected warm_up_steps or warm_up_epochs, not both")
        if not _is_number(self.learning_rate) or not 0 < self.learning_rate < 1:
            given = repr(self.learning_rate)
            raise CommandError(f"learning_rate: expected a number above 0 and below 1, got {given}")
        if not _is_number(self.average) or not 0 <= self.average < 1:
            given = repr(self.average)
            raise CommandError(f"average: expected a number of at least 0 and below 1, got {given}")
        if self.precision not in PRECISIONS:
            names = ", ".join(PRECISIONS)
            raise CommandError(f"precision: expected one of {names}, got {self.precision!r}")

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
        for name in ("preset", "data"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: expected a name, got {getattr(self, name)!r}")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that its numbers depend on, of which JSON can be made."""
        return {name: value for name, value in self.to_dict().items() if name != "preset"}

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name, of which JSON can be made."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Undo `to_dict`; errors are those of `from_table`."""
        tables: dict[str, type[Any]] = {"architecture": Architecture, "training": Training}
        parts = {n: from_table(kind, n, values.get(n)) for n, kind in tables.items()}
        return from_table(cls, "recipe", {**values, **parts})


def _integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CommandError(f"{name}: expected an integer of at least {least}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
