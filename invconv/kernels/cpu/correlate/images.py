"""How a correlation goes through small images: the lanes are images of a batch, as in a solve.

The buffer has, pixel by pixel, C vectors, and nothing around the grid. Pixels whose taps are
equally far away share a list of them: a tap that would read beyond the grid is left out, or reads
the pixel that a continuation has there. So no lane is idle, and no product is with a zero; but
images are transposed on the way in and out.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from invconv.kernels.cpu.correlate.plan import CorrelationProgram, Sizes
from invconv.kernels.cpu.correlate.reading import Reading, repeated
from invconv.kernels.cpu.plan import blocks_of

_BUFFER = 2**21  # bytes of images and results that stay in the cache
_LISTS = 2**14  # numbers of lists of taps, which stay there, too


@dataclass(frozen=True)
class ImagesHeader(Sizes):
    """What all runs have in common: as many images as there are lanes, each in one band.

    Attributes
    ----------
    lists, body, runs : int
        Where the lists of taps and the runs start in the program, and how many runs there are.
    """

    lists: int
    body: int
    runs: int


@dataclass(frozen=True)
class Run:
    """Pixels that follow each other, and read pixels equally far away.

    Attributes
    ----------
    at, columns : int
        Where the first pixel is in the buffer, and how many there are.
    taps : int
        Where the list of their taps is among all lists.
    """

    at: int
    columns: int
    taps: int


@functools.lru_cache(maxsize=64)
def images_program(
    found: Reading, channels: int, lanes: int, most: int, itemsize: int
) -> CorrelationProgram | None:
    """Return the program of a correlation for any batch, or None where it would leave the cache.

    Parameters
    ----------
    found : Reading
    channels : int
    lanes, most, itemsize
        As in `invconv.kernels.cpu.plan.Geometry`.
    """
    taps, (blocks, block), step = len(found.order), blocks_of(channels, most), channels * lanes
    out = math.prod(found.shape) * step
    if 2 * out * itemsize > _BUFFER:
        return None
    lists, body, products = dict[tuple[int, ...], int](), list[Run](), 0
    for at, columns, distances in _runs(found):
        pairs = [(t * block * channels, d * step) for t, d in enumerate(distances) if d is not None]
        few = len(pairs), *itertools.chain(*pairs), *[0] * (2 * (taps - len(pairs)))
        products += columns * len(pairs)
        body.append(Run(at * step, columns, lists.setdefault(few, len(lists) * len(few))))
        if len(lists) * len(few) > _LISTS:
            return None
    weights, first = 2 * out + blocks * block * lanes, len(fields(ImagesHeader))
    header = ImagesHeader(
        channels=channels,
        pixels=out // step,
        taps=taps,
        block=block,
        blocks=blocks,
        images=lanes,
        bands=1,
        out=out,
        spare=2 * out,
        weights=weights,
        size=weights + blocks * block * taps * channels,
        order=first,
        lists=first + taps,
        body=first + taps + len(lists) * (1 + 2 * taps),
        runs=len(body),
    )
    numbers = itertools.chain(astuple(header), found.order, *lists, *map(astuple, body))
    array = np.asarray(list(numbers), np.int64)
    array.setflags(write=False)
    return CorrelationProgram(array, header, products)


def _runs(found: Reading) -> list[tuple[int, int, list[int | None]]]:
    """Return all runs: the first pixel, how many, and how far away each tap reads, None outside."""
    axes = [_along(found, axis) for axis in range(len(found.shape))]
    columns = [(distances, len(list(same))) for distances, same in itertools.groupby(axes[-1])]
    runs, at = list[tuple[int, int, list[int | None]]](), 0
    for outer in itertools.product(*axes[:-1]):
        for last, count in columns:
            runs.append((at, count, list(map(_sum, zip(*outer, last, strict=True)))))
            at += count
    return runs


def _along(found: Reading, axis: int) -> list[list[int | None]]:
    """Return, for each pixel of an axis, how far away along it each tap reads."""
    n, stride = found.shape[axis], math.prod(found.shape[axis + 1 :])
    there = [[repeated(i + o[axis], n, found.wrap) for o in found.offsets] for i in range(n)]
    return [
        [(j - i) * stride if 0 <= j < n else None for j in read] for i, read in enumerate(there)
    ]


def _sum(distances: Sequence[int | None]) -> int | None:
    known = [d for d in distances if d is not None]
    return sum(known) if len(known) == len(distances) else None
