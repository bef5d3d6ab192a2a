"""What a case is, and what cases are made with."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic

Shape = tuple[int, ...]
Build = Callable[[np.random.Generator], ic.InvertibleConv]


@dataclass(frozen=True)
class Case:
    """An operator on a grid."""

    name: str
    build: Build  # makes the operator, in NumPy float64, from a random generator
    spatial_shape: Shape
    batch_shape: Shape = (2,)
    singular: bool = False  # exactly, as computed
    wide: bool = False  # whether its numbers leave the range of float16

    def rng(self) -> np.random.Generator:
        """Return the case's own generator, the same on every run."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    def conv(self) -> ic.InvertibleConv:
        """Return the operator, in NumPy float64."""
        return self.build(self.rng())

    def images(self, count: int) -> list[np.ndarray[Any, Any]]:
        """Return random arrays of the input's shape."""
        rng = self.rng().spawn(1)[0]
        shape = (*self.batch_shape, self.conv().channels, *self.spatial_shape)
        return [rng.standard_normal(shape) for _ in range(count)]


def built(cls: Any, channels: int = 3, scale: float = 0.05, **options: Any) -> Build:
    """Return a function that makes an operator, its parameters moved by N(0, scale^2)."""
    return lambda rng: perturbed(cls.init(channels, rng=rng, **options), rng, scale)


def perturbed(conv: ic.InvertibleConv, rng: np.random.Generator, scale: float = 0.1) -> Any:
    """Return a copy with N(0, scale^2) added to every parameter, masked entries too."""
    arrays = conv.parameters().items()
    return conv.replace(**{n: a + scale * rng.standard_normal(a.shape) for n, a in arrays})


def with_bias(conv: Any, rng: np.random.Generator) -> Any:
    """Return a copy with a random bias."""
    return conv.replace(bias=rng.standard_normal(conv.channels))


def biased(build: Build) -> Build:
    """Return a function that makes the operator with a random bias."""
    return lambda rng: with_bias(build(rng), rng)


def of_values(values: Any, rng: np.random.Generator) -> ic.Conv1x1:
    """Return a 1x1 with these singular values, between random rotations."""
    left, right = (ic.Conv1x1.init(len(values), rng=rng).weight for _ in range(2))
    return ic.Conv1x1((left * values) @ right)


def edited(conv: Any, name: str, place: Any, value: Any) -> Any:
    """Return a copy with other numbers in a place of a parameter."""
    array = conv.parameters()[name].copy()
    array[place] = value
    return conv.replace(**{name: array})
