"""Seconds that one layer takes to sample from, against the size of the images.

The layer is the mixing layer of a flow's first level for images in colour, (B, 3, S, S): 12
channels on a grid of S/2 x S/2, float32, with kept inverses. All else that a flow is made of costs
the same whichever layer it has: the coupling beside it is timed, too.

What others would do for the emerging pair is written from its description: one forward a pixel (the
paper's NumPy code and the obvious loop), and a step a channel of each antidiagonal (FInC Flow).
A masked autoregressive flow takes one pass a number. Where all of it would take long a part is run;
pixels and passes are alike, so that the whole takes in proportion.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

import invconv_torch as it
from invconv_benchmarks.contenders.devices import finc
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.density.evaluation.sampling import invert_pixel_by_pixel
from invconv_benchmarks.density.models.appearance import TITLES
from invconv_benchmarks.density.models.maf import AutoregressiveAffine
from invconv_benchmarks.measure import timing
from invconv_benchmarks.suites.group import Group
from invconv_conformance.libraries.table import LIBRARIES, Target
from invconv_torch.flows import AffineCoupling

Tensor: TypeAlias = torch.Tensor
Call: TypeAlias = Callable[[], Any]

CHANNELS, WIDTH = 12, 32  # of the mixing layer, and inside the networks
_FLOOR = 0.1  # of the networks' scales
_MOST = 2**19  # pixels of all images together; of more, fewer images are run

LAYERS: dict[str, Callable[[], Any]] = {
    TITLES["plain"]: lambda: it.Conv1x1(CHANNELS, "plain"),
    TITLES["plu"]: lambda: it.Conv1x1(CHANNELS, "plu"),
    TITLES["qr"]: lambda: it.Conv1x1(CHANNELS, "qr"),
    TITLES["orthogonal"]: lambda: it.Conv1x1(CHANNELS, "orthogonal"),
    TITLES["circulant"]: lambda: it.Conv1x1(CHANNELS, "circulant"),
    TITLES["emerging"]: lambda: it.EmergingConv2d(CHANNELS),
    TITLES["periodic"]: lambda: it.PeriodicConv2d(CHANNELS),
    TITLES["symmetric"]: lambda: it.SymmetricConv2d(CHANNELS),
    TITLES["exponential"]: lambda: it.ExponentialConv2d(CHANNELS),
}
COUPLING = "the coupling beside it"
PIXELS = "emerging, pixel by pixel"
DIAGONALS = "emerging, FInC's way"
NUMBERS = "MAF, a pass a number"
WAYS = (*LAYERS, COUPLING, DIAGONALS, PIXELS, NUMBERS)


@dataclass(frozen=True)
class Point:
    """The time of a way to sample.

    Attributes
    ----------
    way : str
        One of `WAYS`.
    size : int
        Rows and columns of the images.
    seconds : float
        The median, of all images.
    repeats : int
        How many times it is the median of.
    share : float
        Of the work, what has been run; below 1, the time is extrapolated from it.
    """

    way: str
    size: int
    seconds: float
    repeats: int
    share: float


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure(way: str, size: int, count: int = 100, patience: float = 0.5) -> Point:
    """Time a way to sample so many images, repeating it until the patience, in seconds, is over."""
    torch.manual_seed(0)
    if way in (PIXELS, NUMBERS):
        unit, units = (_pixels if way == PIXELS else _numbers)(size, count)
        unit(1)  # plans and fills caches
        each = timing.seconds(lambda: unit(1))
        part = min(int(units), max(1, int(patience / each)))
        return _timed(way, size, lambda: unit(part), part / units, patience)
    _whole(way, 8, 1)()  # compiles
    images = min(count, max(1, _MOST // size**2)) if way == DIAGONALS else count
    return _timed(way, size, _whole(way, size, images), images / count, patience)


def _timed(way: str, size: int, call: Call, share: float, patience: float) -> Point:
    samples = [timing.seconds(call)]
    if samples[0] < 10 * patience:
        samples = []  # the first was a warm-up
    while sum(samples) < patience and len(samples) < 15:
        samples.append(timing.seconds(call))
    return Point(way, size, statistics.median(samples) / share, len(samples), share)


def _whole(way: str, size: int, count: int) -> Call:
    """Return the call that inverts all of it."""
    z = torch.randn(count, CHANNELS, size // 2, size // 2)
    if way == DIAGONALS:
        return _finc_pair(size, count)
    layer = (
        AffineCoupling(CHANNELS, WIDTH, scale_floor=_FLOOR) if way == COUPLING else LAYERS[way]()
    )
    layer.eval()
    return lambda: layer.inverse(z)


def _finc_pair(size: int, count: int) -> Call:
    """Return FInC's way for two autoregressive convolutions of 2x2, each on images of its own."""
    (library,) = (library for library in LIBRARIES if library.name == "torch")
    shape = (count, CHANNELS, size // 2, size // 2)
    group = Group("inverse", "corner 2", shape, ("inverse",), dtype="float32")
    solve = finc(Setup(group, Target(library, "cpu")))
    return lambda: (solve(), solve())


def _pixels(size: int, count: int) -> tuple[Callable[[int], Any], float]:
    """Return what inverts some pixels of all images, and how many they have."""
    layer = it.EmergingConv2d(CHANNELS).eval()
    z = torch.randn(count, CHANNELS, size // 2, size // 2)
    conv = layer.operator()
    return lambda pixels: invert_pixel_by_pixel(conv, z, pixels), (size // 2) ** 2


def _numbers(size: int, count: int) -> tuple[Callable[[int], Any], float]:
    """Return what makes some passes of a network over images, and how many all of them take."""
    layer = AutoregressiveAffine(3, WIDTH, _FLOOR, backwards=False).eval()
    together = max(1, min(count, _MOST // size**2))
    x = torch.randn(together, 3, size, size)

    def passes(number: int) -> None:
        for _ in range(number):
            layer.shift_and_scale(x)

    return passes, 3 * size**2 * count / together
