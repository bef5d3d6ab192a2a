"""Images to train and test on, and the batches of a run.

What a step sees is a function of the seed and the step alone: no generator has a state that a
checkpoint would have to keep, every model sees the same, and so do several processes together.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from invconv.arrays.errors import CommandError

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

Part: TypeAlias = Literal["validation", "test"]

_FLIPS, _SHIFTS, _NOISE, _ORDER, _TEST, _VALIDATION = range(6)  # of the random generators


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training images of any size, from which tiles are cut, and tiles that are held out."""

    name: str
    train: Sequence[Bytes] | Bytes  # images (C, H, W), of one or of many sizes
    test: Bytes  # tiles (N, C, S, S) that models are reported on
    validation: Bytes | None = None  # tiles to choose by, of other images or another region
    grid: int = 1  # tiles are cut at multiples of so many pixels
    # tiles are flipped at random, or brought into one of the square's eight positions
    symmetry: Literal["none", "horizontal", "all"] = "none"
    shift: int = 0  # tiles are moved by up to so many pixels each way, their edges repeated

    @property
    def watched(self) -> Part:
        """The part that learning curves show: the test's where there is no validation part."""
        return "test" if self.validation is None else "validation"

    def held_out(self, part: Part) -> Bytes:
        """Return the tiles of a part; a validation part that is not there is a CommandError."""
        if part == "test":
            return self.test
        if self.validation is None:
            raise CommandError(f"--data {self.name}: it has no validation part to choose by")
        return self.validation

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, S, S)."""
        channels, height, width = self.test.shape[1:]
        return channels, height, width

    @cached_property
    def _ends(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The number of places for a tile in the first images, for each number of them."""
        sizes = np.asarray([image.shape[1:] for image in self.train])
        across = (sizes - self.image_shape[1]) // self.grid + 1
        return np.asarray(np.cumsum(across.prod(axis=1)), dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of places from which a training tile can be cut: an epoch."""
        return int(self._ends[-1])

    def tile(self, place: int) -> Bytes:
        """Return the training tile at a place, (C, S, S)."""
        image = int(np.searchsorted(self._ends, place, side="right"))
        region, side = self.train[image], self.image_shape[1]
        columns = (region.shape[2] - side) // self.grid + 1
        place -= int(self._ends[image - 1]) if image else 0
        top, left = (self.grid * n for n in divmod(place, columns))
        return region[:, top : top + side, left : left + side]

    @cached_property
    def fingerprint(self) -> str:
        """A digest of every image and setting: a run goes on only with the same data."""
        settings = repr((self.grid, self.symmetry, self.shift, self.test.shape))
        digest = hashlib.blake2b(settings.encode(), digest_size=16)
        validation = () if self.validation is None else (self.validation,)
        for region in (*self.train, self.test, *validation):
            digest.update(repr(region.shape).encode())
            digest.update(np.ascontiguousarray(region).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Batches:
    """Batch and noise of each step of a run; every tile is seen once an epoch, in a new order."""

    data: Dataset
    size: int  # images per step
    seed: int

    def images(self, step: int, part: slice = slice(None)) -> Bytes:
        """Return the tiles of a step, (B, C, S, S); of a process, its part of them."""
        count = len(self.data)
        seen = range(step * self.size, (step + 1) * self.size)
        places = [int(_order(count, self.seed, n // count)[n % count]) for n in seen]
        flips = self._numbers(_FLIPS, step).integers(8, size=self.size)
        ends = -self.data.shift, self.data.shift + 1
        shifts = self._numbers(_SHIFTS, step).integers(*ends, size=(self.size, 2))
        chosen = list(zip(places, flips, shifts, strict=True))[part]
        return np.stack([self._changed(self.data.tile(p), int(f), s) for p, f, s in chosen])

    def noise(self, step: int, part: slice = slice(None)) -> Floats:
        """Return the noise of a step in [0, 1), of the shape of its images."""
        shape = (self.size, *self.data.image_shape)
        return np.asarray(self._numbers(_NOISE, step).random(shape, dtype=np.float32))[part]

    def _numbers(self, purpose: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, step])

    def _changed(self, tile: Bytes, flip: int, shift: Any) -> Bytes:
        if most := self.data.shift:
            side, (top, left) = tile.shape[1], (most + int(s) for s in shift)
            wide = np.pad(tile, ((0, 0), (most, most), (most, most)), mode="edge")
            tile = wide[:, top : top + side, left : left + side]
        if flip & 1 and self.data.symmetry != "none":
            tile = tile[:, :, ::-1]
        if self.data.symmetry == "all":
            tile = tile[:, ::-1] if flip & 2 else tile
            tile = tile.transpose(0, 2, 1) if flip & 4 else tile
        return tile


def noise_of(data: Dataset, part: Part = "test") -> Floats:
    """Return noise for all tiles of a part, the same for every model."""
    numbers = np.random.default_rng([0, _TEST if part == "test" else _VALIDATION])
    return np.asarray(numbers.random(data.held_out(part).shape, dtype=np.float32))


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)
