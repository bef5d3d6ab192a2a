"""The program of a correlation of small images: the lanes are images of a batch, as in a solve.

The buffer has C vectors for each pixel, and no margin around the grid. Pixels that read at equal
distances share a list of taps; a tap that would read beyond the grid is left out, or reads the
pixel of the continued image. So no lane is idle and no product is with a zero; but images are
transposed on the way in and out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from invconv.kernels.cpu.compiler.target import Target
from invconv.kernels.cpu.correlate.bands import (
    CorrelationHeader,
    CorrelationProgram,
    Reading,
    repeated,
    sizes,
)
from invconv.kernels.cpu.geometry import TapList
from invconv.kernels.cpu.program import numbers_of, tap_list

_BUFFER = 2**21  # bytes of images and results, at most, to stay in the cache
_LISTS = 2**14  # numbers of all lists of taps, at most, to stay there too


@dataclass(frozen=True)
class Run:
    """Adjacent pixels that share a list of taps."""

    # place of the first pixel in the buffer, and number of pixels
    at: int
    columns: int
    taps: int  # place of their list of taps among all lists


def images_program(
    read: Reading, channels: int, target: Target, itemsize: int
) -> CorrelationProgram | None:
    """Return the program of a correlation for any batch, or None if the cache is too small."""
    taps, lanes, pixels = len(read.order), target.lanes(itemsize), math.prod(read.shape)
    step = channels * lanes
    if 2 * pixels * step * itemsize > _BUFFER:
        return None
    fields = sizes(channels, pixels * step, taps, target, itemsize)
    lists, body, products = dict[tuple[int, ...], int](), list[Run](), 0
    for at, columns, distances in _runs(read):
        there = [(t, d * step) for t, d in distances]
        few = tuple(tap_list(there, taps, fields["block"] * channels))
        products += columns * len(there)
        body.append(Run(at * step, columns, lists.setdefault(few, len(lists) * len(few))))
        if len(lists) * len(few) > _LISTS:
            return None
    sections = {
        "order": read.order,
        "lists": list(itertools.chain(*lists)),
        "body": numbers_of(body),
    }
    header = CorrelationHeader(
        **fields, pixels=pixels, images=lanes, pieces=len(body), channel_step=lanes
    )
    return CorrelationProgram.of(header, sections, products)


def _runs(read: Reading) -> Iterator[tuple[int, int, TapList]]:
    """Yield each run: its first pixel, number of pixels, and taps that read inside the grid."""
    axes = [_along(read, axis) for axis in range(len(read.shape))]
    columns = [(distances, len(list(same))) for distances, same in itertools.groupby(axes[-1])]
    at = 0
    for outer in itertools.product(*axes[:-1]):
        for last, count in columns:
            inside = [t for t in last if all(t in distances for distances in outer)]
            yield at, count, [(t, last[t] + sum(d[t] for d in outer)) for t in inside]
            at += count


def _along(read: Reading, axis: int) -> list[dict[int, int]]:
    """Return, for each pixel of an axis, the distance along it of each tap that reads inside."""
    n, stride = read.shape[axis], math.prod(read.shape[axis + 1 :])
    there = [[repeated(i + o[axis], n, read.wrap) for o in read.offsets] for i in range(n)]
    return [
        {t: (j - i) * stride for t, j in enumerate(pixels) if 0 <= j < n}
        for i, pixels in enumerate(there)
    ]
