"""Random operators to judge: of all families, chains of two to eight steps, and large grids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

import invconv as ic
from invconv_benchmarks.studies.silent_error.constructions import Construction
from invconv_conformance.cases import drawn
from invconv_conformance.cases.case import perturbed
from invconv_conformance.cases.drawn import FAMILIES

_UNKNOWNS = {"SMALL": 80, "LARGE": 160, "_DENSE": 80}  # for elimination in extended precision
_CHANNELS, _GRID = (1, 5), (3, 4)
_LARGE = 48, 24  # pixels along each of two axes, and channels
_STEPS: tuple[Any, ...] = (
    *(ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1, ic.ActNorm),
    *(ic.AutoregressiveConv, ic.EmergingConv, ic.PeriodicConv),
)


def random_operators(count: int, seed: int = 0) -> Iterator[Construction]:
    """Yield so many operators of each family, in float32 and float64 by turns."""
    for number, (name, draw) in enumerate(FAMILIES.items()):
        for i, rng in enumerate(np.random.default_rng([seed, number]).spawn(count)):
            with mock.patch.dict(vars(drawn), _UNKNOWNS):
                conv, shape = draw(rng)
            yield name, _cast(conv, i), shape


def chains(count: int, seed: int = 0) -> Iterator[Construction]:
    """Yield so many chains of two to eight steps, in float32 and float64 by turns."""
    for i, rng in enumerate(np.random.default_rng([seed, 1]).spawn(count)):
        channels = int(rng.integers(*_CHANNELS))
        scale = 10.0 ** rng.uniform(-2, 0)
        steps = [_step(rng, channels, scale) for _ in range(int(rng.integers(2, 9)))]
        if rng.random() < 0.3:
            steps.append(ic.Inverse(steps[0]))
        yield "chains of 2 to 8 steps", _cast(ic.Chain(steps), i), _GRID


def _step(rng: np.random.Generator, channels: int, scale: float) -> ic.InvertibleConv:
    """Return a step whose parameters are moved by N(0, scale^2) from their initialisation."""
    cls = _STEPS[int(rng.integers(len(_STEPS)))]
    conv: ic.InvertibleConv = perturbed(cls.init(channels, rng=rng), rng, scale)
    return ic.Inverse(conv) if rng.random() < 0.2 else conv


def large_grids(count: int, seed: int = 0) -> Iterator[Construction]:
    """Yield convolutions that lose many digits of float64 on a grid that longdouble crops."""
    side, channels = _LARGE
    for rng in np.random.default_rng([seed, 2]).spawn(count):
        kernel = rng.uniform(0.12, 0.2) * rng.standard_normal((channels, channels, 2, 2))
        kernel[:, :, 0, 0] = np.eye(channels)
        yield "large grids, float64", ic.AutoregressiveConv(kernel), (side, side)


def _cast(conv: ic.InvertibleConv, number: int) -> ic.InvertibleConv:
    with np.errstate(over="ignore"):  # inf is what float32 makes of it
        return conv.asarrays(np.empty(0, ("float32", "float64")[number % 2]))
