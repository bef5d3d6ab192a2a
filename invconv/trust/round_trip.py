"""The error of an inverse as it runs: round trips of images, on the whole grid.

    x -> y = K x + b -> x' = K^-1 (y - b),    error = max |x' - x| / max |x|

All runs in the working precision, by the solver of the judged call. That alone would miss errors:
- roundings that K and its solver share cancel: so K x of some images is computed differently;
- some errors show only for an ordinary y: so some images are K^-1 of noise, which contains the
  directions in which errors grow;
- some errors show only where K x is large, or small, or where the roundings of a sum over taps are
  alike at every pixel: so most images are numbers near the largest one, or one number per channel,
  times signs for which K x is large or small. K x runs by the kernel of the user's calls, since
  sums in another order round less. For a K of positive numbers such images are grey, or alternate;
  for D K D, D = diag(+-1), they are D times those, so that D K D is judged as K is.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from invconv.arrays.namespaces import Array, Shape, cast, device, is_half, namespace, size
from invconv.kernels.primitives import Map
from invconv.trust import limits
from invconv.trust.bound import Floats
from invconv.trust.condition import EPS, digits_left


class Image(NamedTuple):
    """How an image of a round trip is drawn, and how its K x is computed.

    "noise" is N(0, 1). "large" and "small" are numbers between 1/2 and 1 times the signs for which
    K x is large or small. In "bands" both kinds of signs alternate, times numbers between 0 and 1,
    since sums of numbers of one exponent are undone exactly, or times one number. A "level" image
    has one number, or one per channel, times such signs or, at times, the signs of K^-1 of noise. A
    "weak" one has these last signs, and a third of its rows are K^-1 of noise themselves.
    """

    kind: str
    other: bool  # whether K x is computed differently from the solver, so that no rounding cancels
    back: bool = False  # whether it is K^-1 of such an image


@dataclass(frozen=True)
class Judgement:
    """The error of an inverse as it was measured."""

    error: float  # the largest error of an entry of x over the largest entry; inf if it fails

    def digits(self, precision: str) -> float:
        """Return the number of right decimal digits that are left in a precision."""
        return digits_left(self.error / EPS[precision], EPS[precision])


@dataclass(frozen=True)
class RoundTrip:
    """An inverse to judge, on NumPy arrays (B, C, *spatial) of one dtype."""

    own: Map  # x -> K x + b with the solver's numbers
    other: Map  # the same with other numbers
    solve: Map  # y -> K^-1 (y - b)
    sample: Shape  # (C, *spatial)
    dtype: Any
    signs: Floats  # (2, C, *spatial) of +-1 for which K x is large, and small
    spectral: bool = False  # whether it is solved by frequencies
    steps: bool = False  # whether some factor is solved pixel after pixel, so that errors add up
    matrices: bool = False  # whether matrices are multiplied; their inverses run one by one
    reachable: Map | None = None  # x -> the part of x that a singular K does not lose
    rounded: Map | None = None  # y -> y as the dtype of the call's arrays holds it

    def error(self, affordable: int, limit: float | None) -> float:
        """Return the largest error of some images, as many as it takes to compare it with a limit.

        ``affordable`` images are taken, more if the error is just below the limit, and few if it is
        far below. Without a limit there are as many as in a diagnosis.
        """
        few = self.is_few(affordable)
        by_steps = few and self.steps  # their images differ widely
        turn = len(self._turn(0, few)) * (1 + (self.matrices and not few))
        first = max(turn, affordable if by_steps else 0)
        first = 1 if self.spectral and not affordable else first  # a part of the grid has more
        count = max(first, min(affordable, limits.FEW if limit else limits.DIAGNOSED))
        turns = (self._turn(number, few) for number in itertools.count())
        images = itertools.chain.from_iterable(turns)
        together = at_once(size(self.sample), self.spectral)
        error, drawn, wanted = 0.0, 0, first if limit else count
        while drawn < wanted:
            some = list(itertools.islice(images, min(wanted - drawn, together)))
            error, drawn = max(error, self._error_of(some)), drawn + len(some)
            if limit and drawn == wanted and error > limits.NEAR**2 * limit:
                wanted = limits.MORE * count if limits.NEAR * limit < error <= limit else count
        return limits.UNSEEN * error if by_steps else error

    def is_few(self, affordable: int) -> bool:
        """Tell whether these are too few for one image of each kind: then other kinds are drawn."""
        return affordable < limits.CYCLE * (1 + self.spectral)

    def _turn(self, number: int, few: bool) -> list[Image]:
        """Return images of each kind, or the few that find most errors."""
        bands = Image("bands", other=False)
        if few:
            several = [Image("weak", other=False), bands] if self.spectral else [bands]
            if self.steps:  # in bands of alike numbers rounding to the nearest stops slow growth
                several.append(Image("noise", other=False))
                if size(self.sample[1:]) > limits.BATCH:  # over so many roundings kinds differ more
                    several.append(Image("large", other=True))
            if self.matrices and not self.spectral:
                several.append(Image("noise", other=True, back=True))
            return several
        other, kind = number % 2 == 0, ("noise", "large", "small")[number % 3]
        level = Image("level", other=False)  # whose roundings are looked for, not cancelled
        signs = Image(("large", "small")[number % 2], not other)
        return [Image(kind, other, back=True), bands, level, Image("noise", other), signs]

    def _error_of(self, images: list[Image]) -> float:
        images.sort(key=lambda image: image.other)
        x, own = self._drawn(images), sum(not image.other for image in images)
        axes = tuple(range(1, x.ndim))
        largest = np.abs(x).max(axis=axes)
        x = x if self.reachable is None else self.reachable(x)
        maps = (self.own, x[:own]), (self.other, x[own:])
        y = [run(some) for run, some in maps if len(some)]
        every = y[0] if len(y) == 1 else np.concatenate(y)
        off = np.abs(self.solve(every if self.rounded is None else self.rounded(every)) - x)
        most = off.max(axis=axes)
        errors = np.where(most == 0, 0, most / largest)
        return float(errors.max()) if np.isfinite(errors).all() else math.inf

    def _drawn(self, images: Sequence[Image]) -> Floats:
        """Return images; one is infinite, and so lost, if K^-1 of an ordinary image overflows."""
        rng = np.random.default_rng()
        x = np.empty((len(images), *self.sample), self.dtype)
        large, small = self.signs
        kinds = {"large": large, "small": small, "level": self.signs[rng.integers(2)]}
        solved = []
        for i, (kind, _, back) in enumerate(images):
            weak = kind == "weak" or (kind == "level" and self.spectral and rng.integers(2) == 0)
            if back or weak:
                solved.append(i)
            if kind == "noise" or weak:
                rng.standard_normal(out=x[i], dtype=self.dtype)
            elif kind == "level":
                x[i] = self._leveled(rng, kinds[kind])
            else:
                rng.random(out=x[i], dtype=self.dtype)
                if kind == "bands":
                    self._band(rng, x[i])
                else:
                    x[i] = (x[i] + 1) / 2 * kinds[kind]
        for i, back in zip(solved, self.solve(x[solved]) if solved else (), strict=True):
            if not np.isfinite(back).all():
                if np.abs(self.own(x[[i]])).max() > limits.SMALL:
                    x[i] = np.inf
            elif images[i].back:
                x[i] = back
            else:
                x[i] = self._leveled(rng, np.sign(back))
                if images[i].kind == "weak":
                    rows = back[:, : 1 + len(back[0]) // 3]
                    x[i, :, : len(rows[0])] = rows / np.abs(rows).max()
        return x

    def _band(self, rng: np.random.Generator, x: Floats) -> None:
        """Give numbers (C, *spatial) alternating signs by bands, and level every other pair."""
        count, level = size(self.sample[1:]), self.dtype.type(rng.uniform(0.5, 1))
        numbers, first = x.reshape(-1, count), int(rng.integers(4))
        signs = [s.reshape(-1, count) for s in self.signs]
        for band in range(limits.BANDS):
            part = slice(count * band // limits.BANDS, count * (band + 1) // limits.BANDS)
            alike, which = divmod((band + first) % 4, 2)
            numbers[:, part] = (level if alike else numbers[:, part]) * signs[which][:, part]

    def _leveled(self, rng: np.random.Generator, signs: Floats) -> Any:
        """Return signs times one number, or one a channel."""
        count = len(signs) if rng.integers(2) else 1
        levels = rng.uniform(0.5, 1, (count, *(1 for _ in signs[0].shape)))
        return signs * levels.astype(self.dtype)


def at_once(numbers: int, spectral: bool) -> int:
    """Return how many images of so many numbers are solved at once."""
    return max(1, limits.BATCH * (4 if spectral else 1) // numbers)


def relative_error(x: Array, again: Array, z: Array) -> tuple[Array, Array]:
    """Return the error of each image x recomputed from an output z, and whether it is tolerated.

    The error is |again - x| / |x|, in the 2-norm or in the largest entry, whichever is larger. An
    input far smaller than its output may be off by the output's rounding. An input that is not
    finite counts as right: its gradient is NaN anyway.
    """
    xp = namespace(x)
    eps = xp.finfo(x.dtype).eps
    if is_half(x.dtype, x):
        x, again, z = (cast(a, xp.float32) for a in (x, again, z))

    def over(reduce: Callable[..., Array], a: Array) -> Array:
        return reduce(a, axis=tuple(range(1, a.ndim)))

    off = again - x
    most, largest, end = (over(xp.max, xp.abs(a)) for a in (off, x, z))
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))  # so that no square overflows
    unit = xp.reshape(unit, (-1, *(1,) * (x.ndim - 1)))
    norm, size = (xp.sqrt(over(xp.sum, (a / unit) ** 2)) for a in (off, x))
    error = xp.maximum(most / largest, norm / size)
    nothing = xp.isfinite(end) & (largest <= eps**2 * end)
    rounding = limits.ROUNDING * eps
    right = (error <= max(limits.TOLERATED, rounding)) | (nothing & (most <= rounding * end))
    return error, right | ~xp.isfinite(largest)


def noise_like(x: Array) -> Array:
    """Return noise (1, C, *spatial) of variance 1 for images (B, C, *spatial); always the same."""
    xp = namespace(x)
    count = size(x.shape[1:])
    real = xp.float32 if is_half(x.dtype, x) else x.dtype
    numbers = 43758.5453 * xp.sin(xp.arange(1, count + 1, dtype=real, device=device(x)))
    uniform = numbers - xp.floor(numbers)
    return cast(xp.reshape(math.sqrt(12) * (uniform - 0.5), (1, *x.shape[1:])), x.dtype)
