"""The bases in which convolutions decouple, K_hat(f) x_hat(f): one kind of waves along each axis.

    periodic    exp(2 pi i f p / N), any kernel              phases exp(2 pi i f t / N)
    symmetric   cosines, an image between mirrors            cos(pi m t / N)
    mirror      cosines, mirrors in the last pixels          cos(pi m t / (N - 1))
    odd         sines, an image between walls at zero        cos(pi (m + 1) t / (N + 1))

Along the last three the kernel is even: tap t stands at the offsets +-t, and counts twice unless
t = 0 (S. A. Martucci, Symmetric Convolution and the Discrete Sine and Cosine Transforms, 1994).
The images are real: along the last periodic axis half of the frequencies suffice, the rest are
their conjugates. Without a periodic axis all is real.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, constant, device, namespace, size
from invconv.kernels.frequencies.waves import (
    COSINES,
    MIRRORS,
    SINES,
    TRANSPOSED_MIRRORS,
    Waves,
    complex_dtype,
    doubled,
    turns,
)
from invconv.kernels.primitives import pad, part

BORDERS = "periodic", "symmetric", "mirror", "odd", "zero"
_WAVES: dict[str, Waves | None] = {
    "periodic": None,
    "symmetric": COSINES,
    "mirror": MIRRORS,
    "odd": SINES,
    "zero": SINES,  # what kernels of three taps see between walls at zero
    "transposed mirror": TRANSPOSED_MIRRORS,
}
# the borders of the transpose; the others stay what they are
_TURNED = {"mirror": "transposed mirror", "transposed mirror": "mirror"}


@dataclass(frozen=True)
class Basis:
    """A basis of real images in which convolutions with some borders decouple.

    It is orthogonal, unless there are mirrors in the last pixels.
    """

    borders: tuple[str, ...]  # one word per axis: of `BORDERS`, or a transpose's
    dilation: Shape  # of the kernels, along periodic axes

    # the real waves along each axis, None for a periodic one
    waves: tuple[Waves | None, ...] = field(init=False, repr=False, compare=False)
    walls: tuple[Waves, ...] = field(init=False, repr=False, compare=False)  # each of them once
    closed: tuple[int, ...] = field(init=False, repr=False, compare=False)  # the periodic axes

    def __post_init__(self) -> None:
        waves = tuple(_WAVES[border] for border in self.borders)
        closed = tuple(axis for axis, kind in enumerate(waves) if kind is None)
        walls = tuple(kind for kind in dict.fromkeys(waves) if kind is not None)
        vars(self).update(waves=waves, walls=walls, closed=closed)

    def transpose(self) -> Basis:
        """Return the basis in which transposes decouple: this one, if it is orthogonal."""
        borders = tuple(_TURNED.get(border, border) for border in self.borders)
        return self if borders == self.borders else Basis(borders, self.dilation)

    def dtype(self, like: Array) -> Any:
        """Return the dtype of a spectrum, real or complex, in the precision of ``like``."""
        return complex_dtype(like) if self.closed else like.dtype

    def frequencies(self, shape: Shape) -> Shape:
        """Return the number of frequencies along each axis of a grid."""
        half = self.closed[-1:]
        return tuple(n // 2 + 1 if axis in half else n for axis, n in enumerate(shape))

    def multiplicity(self, shape: Shape) -> np.ndarray[Any, Any]:
        """Return how often each frequency of the half spectrum occurs in the full one, (F,)."""
        half = self.closed[-1:]
        along = [_multiplicity(n) if axis in half else np.ones(n) for axis, n in enumerate(shape)]
        return functools.reduce(np.multiply.outer, along).reshape(-1)

    def counts(self, kernel_size: Shape) -> np.ndarray[Any, Any]:
        """Return the number of offsets of each tap, (T,)."""
        sides = zip(self.waves, kernel_size, strict=True)
        along = [np.ones(k) if waves is None else doubled(k) for waves, k in sides]
        return functools.reduce(np.multiply.outer, along).reshape(-1)

    def periods(self, place: Shape) -> tuple[float, ...]:
        """Return how many periods a frequency has along each axis."""
        pairs = zip(self.waves, place, strict=True)
        return tuple(f if waves is None else (f + waves.first) / 2 for waves, f in pairs)

    def phases(self, kernel_size: Shape, shape: Shape) -> list[np.ndarray[Any, Any]]:
        """Return the factors of each tap in each frequency, per axis, shape (k, frequencies).

        A kernel wider than the grid folds onto it.
        """
        result, along = [], map(np.arange, self.frequencies(shape))
        settings = zip(self.waves, kernel_size, self.dilation, along, map(int, shape), strict=True)
        for waves, k, d, f, n in settings:
            if waves is None:
                offsets = d * (np.arange(k) - (k - 1) // 2)
                result.append(turns(np.outer(offsets, f), n))
            else:
                result.append(waves.phases(k, f, n))
        return result

    def transform(self, kernel: Array, shape: Shape) -> Array:
        """Return the sum over taps of a kernel times their phases, (C, C, *frequencies), by FFTs.

        The taps are laid on one period of each axis, where those that meet add up.
        """
        xp = namespace(kernel)
        for axis, waves, places, period in self._periods(kernel.shape[2:], shape):
            if waves is not None:
                kernel = kernel * _along(axis, kernel, doubled(len(places)))
            kernel = _folded(kernel, axis, places, period)
            if waves is not None:
                kernel = xp.real(_fft_of(kernel).rfft(kernel, axis=axis))
                kernel = part(kernel, axis, waves.first, waves.first + int(shape[axis - 2]))
        if self.closed:
            kernel = xp.conj(_fft_of(kernel).rfftn(kernel, axes=self._axes(None)))
        return kernel

    def transposed_transform(self, spectrum: Array, kernel_size: Shape, shape: Shape) -> Array:
        """Return the transpose of `transform`, a sum over all frequencies, conjugates included."""
        x, xp = spectrum, namespace(spectrum)
        if self.closed:
            lengths = tuple(shape[axis] for axis in self.closed)
            x = _fft_of(x).irfftn(x, s=lengths, axes=self._axes(None), norm="forward")
        for axis, waves, places, period in self._periods(kernel_size, shape):
            places = places % period
            if waves is not None:
                x = pad(x, axis, waves.first, period - waves.first - x.shape[axis])
                x = xp.real(_fft_of(x).rfft(x, axis=axis))  # of t and of period - t the same
                places = np.minimum(places, period - places)
            x = xp.take(x, constant(places, x), axis=axis)
            if waves is not None:
                x = x * _along(axis, x, doubled(len(places)))
        return x

    def _periods(
        self, kernel_size: Shape, shape: Shape
    ) -> Iterator[tuple[int, Waves | None, np.ndarray[Any, Any], int]]:
        """Yield the axis of (C, C, *k), the waves, the place of each tap, and the period."""
        settings = zip(self.waves, kernel_size, self.dilation, map(int, shape), strict=True)
        for axis, (waves, k, d, n) in enumerate(settings, 2):
            if waves is None:
                yield axis, waves, d * (np.arange(k) - (k - 1) // 2), n
            else:
                yield axis, waves, np.arange(k), waves.period(n)

    def to_frequencies(self, x: Array) -> Array:
        """Return x_hat (F, C, B), real or complex, of images (B, C, *spatial).

        x_hat(f) is the sum over the pixels of x times the conjugate of the wave.
        """
        xp, shape = namespace(x), x.shape[2:]
        batch, channels = x.shape[:2]
        if batch == 0:  # torch does not transform an empty batch
            count = size(self.frequencies(shape))
            return xp.zeros((count, channels, 0), dtype=self.dtype(x), device=device(x))
        for waves in self.walls:
            x = waves.transform(x, self._axes(waves))
        if self.closed:
            x = _fft_of(x).rfftn(x, axes=self._axes(None))
        x_hat = xp.reshape(x, (batch, channels, size(x.shape[2:])))
        return xp.permute_dims(x_hat, (2, 1, 0))

    def from_frequencies(self, x_hat: Array, shape: Shape) -> Array:
        """Undo `to_frequencies`, to a grid of ``shape``."""
        xp = namespace(x_hat)
        x = xp.permute_dims(x_hat, (2, 1, 0))
        x = xp.reshape(x, (*x.shape[:2], *self.frequencies(shape)))
        if self.closed:
            lengths = tuple(shape[axis] for axis in self.closed)
            x = _fft_of(x).irfftn(x, s=lengths, axes=self._axes(None))
        for waves in self.walls:
            x = waves.transform(x, self._axes(waves), back=True)
        return x

    def _axes(self, waves: Waves | None) -> tuple[int, ...]:
        """Return the axes of (B, C, *spatial) with these waves, periodic ones for None."""
        return tuple(2 + axis for axis, other in enumerate(self.waves) if other == waves)


def _along(axis: int, x: Array, values: np.ndarray[Any, Any]) -> Array:
    """Return numbers along an axis of x, in a shape that broadcasts against it."""
    return constant(values.reshape(-1, *[1] * (x.ndim - 1 - axis)), x, x.dtype)


def _folded(x: Array, axis: int, places: np.ndarray[Any, Any], period: int) -> Array:
    """Return the sums of the numbers at evenly spaced places, modulo a period, along an axis."""
    xp, shape = namespace(x), tuple(x.shape)
    step = int(places[-1] - places[0]) // max(1, len(places) - 1)
    distinct = period // math.gcd(step, period)  # so many, then they come again
    rounds = -(-len(places) // distinct)
    x = pad(x, axis, 0, rounds * distinct - len(places))
    x = xp.sum(xp.reshape(x, (*shape[:axis], rounds, distinct, *shape[axis + 1 :])), axis=axis)
    source = np.full(period, distinct)  # a zero, unless a tap is there
    source[(int(places[0]) + step * np.arange(distinct)) % period] = np.arange(distinct)
    return xp.take(pad(x, axis, 0, 1), constant(source, x), axis=axis)


def _multiplicity(n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    counts = np.full(n // 2 + 1, 2.0)  # Dynamo makes float32 of numbers in np.where
    counts[0] = 1.0
    if n % 2 == 0:
        counts[-1] = 1.0
    return counts


def _fft_of(x: Array) -> Any:
    """Return the module of transforms: SciPy's are 2 to 5 times as quick as NumPy's."""
    if isinstance(x, np.ndarray):
        from scipy import fft  # here: it takes long to import

        return fft
    return namespace(x).fft


def fourier(ndim: int) -> Basis:
    """Return the basis of images that are periodic along all axes, for kernels of any dilation."""
    return Basis(("periodic",) * ndim, (1,) * ndim)
