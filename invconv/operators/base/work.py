"""Estimates of the work of products K x and solves: they limit the images of a judgement.

Work is counted as in `invconv.trust.limits`.
"""

from typing import Any

from invconv.arrays.namespaces import Shape, size
from invconv.families.path import Factor, Path
from invconv.trust import limits
from invconv.trust.round_trip import at_once


def work_of(path: Path, channels: int, shape: Shape) -> tuple[bool, bool, float]:
    """Return whether K x is a sum over taps, whether waves solve it, and the work for an image.

    This is the work of a round trip without biases: the image is drawn, in part by a solve, then
    K x runs, then the solve.
    """
    numbers = channels * size(shape)
    sums, applied = 0.0, 0.0  # products; ``applied`` of maps whose inverses are of their kind
    for factor in path:
        family = factor.family
        products = channels * numbers if family.pixelwise else family.products(factor.w, shape)
        if family.solves_by_applying:
            applied += max(products, summed(factor, shape))
        else:
            sums += products
    waves: list[Any] = [f.family for f in path if f.family.spectral]
    wide = [getattr(family, "wide", False) for family in waves]  # has many taps
    by_taps = not wide or sums <= max(limits.TAPS, 32 * numbers)
    slow = any(family.basis.is_slow(shape) for family in waves)
    transforms, work = len(wide) * (48 if slow else 6) * numbers, 8 * numbers + applied / 4
    if channels > 1:  # the matrix of each frequency is factored for every batch of images
        work += transforms * (5 + channels) / at_once(numbers, transforms > 0)
    if by_taps and not any(wide):
        work += transforms + sums * (1 / channels + 1 / 16)
    else:  # K x runs by transforms in float64
        work += 20 * transforms
    return by_taps, bool(wide), work


def summed(factor: Factor, shape: Shape) -> float:
    """Return the products of K x as a call runs it; 0 if too many, where the inverse is quicker."""
    number = factor.family.summed(factor.w, shape)
    return number if number <= limits.TAPS else 0.0


def quicker_by_blas(path: Path, shape: Shape) -> bool:
    """Tell whether a sum over taps takes less time by BLAS than to compile its kernel."""
    few = 1 / 8 + any(f.w.shape[0] == 1 for f in path if not isinstance(f.w, tuple))
    matrices = all(factor.family.pixelwise for factor in path)
    return not matrices and few * products(path, shape) < limits.COMPILED


def of_estimate(path: Path, channels: int, shape: Shape, alike: bool) -> float:
    """Return the work per pixel of a norm's estimate; ``alike``: one column per channel tells."""
    applied = min(12, 2 * channels) if alike else 12  # products K x
    return applied * _compiled(path, channels, shape) / size(shape)


def _compiled(path: Path, channels: int, shape: Shape) -> float:
    """Return the work of a compiled K x, or of a solve, of one image."""
    return products(path, shape) / 16 + 8 * channels * size(shape)


def products(path: Path, shape: Shape) -> float:
    """Return how many products of two numbers K x takes."""
    return sum(factor.family.products(factor.w, shape) for factor in path)
