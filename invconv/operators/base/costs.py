"""What judgements cost, in additions of arrays of one number: it chooses their images and grids."""

from typing import NamedTuple, Self

from invconv.arrays.namespaces import Shape, size
from invconv.families.path import Path
from invconv.trust import limits
from invconv.trust.round_trip import at_once


class Work(NamedTuple):
    """What makes up the work of a round trip of an image, for factors without biases."""

    channels: int
    numbers: int  # of an image
    summed: float  # products, but for
    applied: float  # those of maps whose inverses are of their own kind
    transforms: tuple[bool, ...]  # whether it has many taps, for each factor that is spectral

    @classmethod
    def of(cls, path: Path, channels: int, shape: Shape) -> Self:
        numbers, summed, applied = channels * size(shape), 0.0, 0.0
        for family, w, _ in path:
            products = channels * numbers if family.pixelwise else family.products(w, shape)
            if family.solves_by_applying:
                applied += products
            else:
                summed += products
        spectral = (factor.family for factor in path if factor.family.spectral)
        wide = tuple(getattr(family, "wide", False) for family in spectral)
        return cls(channels, numbers, summed, applied, wide)

    @property
    def by_taps(self) -> bool:
        """Whether K x is a sum over taps."""
        return not self.transforms or self.summed <= max(limits.TAPS, 32 * self.numbers)

    def images(self, times: float) -> int:
        """Return how many images are affordable if ``times`` operators share a call's work."""
        # it is drawn, in part by a solve, K x runs, and the solve
        spectral = len(self.transforms) * 6 * self.numbers
        work = 8 * self.numbers + self.applied / 4
        if self.channels > 1:  # matrices of frequencies, factored anew for those solved at once
            work += spectral * (5 + self.channels) / at_once(self.numbers, spectral > 0)
        if self.by_taps and not any(self.transforms):
            work += spectral + self.summed * (1 / self.channels + 1 / 16)
        else:  # K x has float64's transforms
            work += 20 * spectral
        return int(limits.WORK / (times * work))


def quicker_by_blas(path: Path, shape: Shape) -> bool:
    """Tell whether a sum over taps takes less time by BLAS than to compile its kernel."""
    few = 1 / 8 + any(f.w.shape[0] == 1 for f in path if not isinstance(f.w, tuple))
    matrices = all(factor.family.pixelwise for factor in path)
    return not matrices and few * _products(path, shape) < limits.COMPILED


def images_of_growth(path: Path, channels: int, shape: Shape) -> int:
    """Return how many images are affordable; one may hit what grows little, tenfold by chance."""
    return max(1, min(8, int(limits.WORK / (8 * _compiled(path, channels, shape)))))


def of_estimate(path: Path, channels: int, shape: Shape, alike: bool) -> float:
    """Return the work for a pixel of a norm's estimate; ``alike`` if one column a channel tells."""
    applied = min(12, 2 * channels) if alike else 12  # products K x
    return applied * _compiled(path, channels, shape) / size(shape)


def _compiled(path: Path, channels: int, shape: Shape) -> float:
    """Return the work of a compiled K x, or of a solve, of one image."""
    return _products(path, shape) / 16 + 8 * channels * size(shape)


def _products(path: Path, shape: Shape) -> float:
    return sum(factor.family.products(factor.w, shape) for factor in path)
