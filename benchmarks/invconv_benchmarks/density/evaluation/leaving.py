"""Samples that are no images: numbers that are not finite, or not in [0, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from invconv_torch.flows import Multiscale

Tensor: TypeAlias = torch.Tensor

_AT_A_TIME = 500


@dataclass(frozen=True)
class Leaving:
    """How many of some samples, and of their numbers, are not finite or leave [0, 1).

    Attributes
    ----------
    samples, numbers : int
        All of them.
    non_finite, outside : int
        Samples with a number that is inf or NaN; of the others, those with one outside [0, 1).
    far : int
        Of the finite samples, those with a number below -1 or above 2.
    numbers_non_finite, numbers_outside : int
        Of all numbers.
    largest : float
        Magnitude of a finite number.
    """

    samples: int = 0
    numbers: int = 0
    non_finite: int = 0
    outside: int = 0
    far: int = 0
    numbers_non_finite: int = 0
    numbers_outside: int = 0
    largest: float = 0.0

    def __add__(self, other: Leaving) -> Leaving:
        mine, theirs = vars(self), vars(other)
        sums = {name: mine[name] + theirs[name] for name in mine}
        return Leaving(**sums | {"largest": max(self.largest, other.largest)})


def count(samples: Tensor) -> Leaving:
    """Count what leaves, in samples (n, C, H, W)."""
    finite = torch.isfinite(samples)
    outside = finite & ~((samples >= 0) & (samples < 1))
    far = finite & ((samples < -1) | (samples > 2))
    whole = _everywhere(finite)

    def images(numbers: Tensor) -> int:
        return int((whole & ~_everywhere(~numbers)).sum())

    return Leaving(
        samples=len(samples),
        numbers=samples.numel(),
        non_finite=int((~whole).sum()),
        outside=images(outside),
        far=images(far),
        numbers_non_finite=int((~finite).sum()),
        numbers_outside=int(outside.sum()),
        largest=float(torch.where(finite, samples, 0.0).abs().max()),
    )


def _everywhere(numbers: Tensor) -> Any:
    return numbers.flatten(1).all(dim=1)


def of_model(model: Multiscale, samples: int) -> Leaving:
    """Draw so many samples of a model, some at a time, and count what leaves."""
    generator, found = torch.Generator().manual_seed(0), Leaving()
    while found.samples < samples:
        n = min(_AT_A_TIME, samples - found.samples)
        found += count(model.sample(n, generator=generator))
    return found
