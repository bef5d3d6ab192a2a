"""The buffer of the plain wavefront: positions of the images, and the order of the solve.

See `invconv.kernels.plain.pitched`. No array is made here: only sizes, places and distances,
counted in array elements.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace

from invconv.arrays.stencil import Offset

_POWER = 512  # numbers: pixels at multiples of this distance share few sets of the cache
_LINE = 16  # numbers: a line of the cache, or two

Block = tuple[int, int, int, int]


def order_in_memory(
    reach: tuple[Offset, ...], direction: tuple[int, ...]
) -> list[tuple[int, Offset]]:
    """Return (t, offset of the pixel that tap t reads), sorted by memory; t = -1 is the pixel."""
    here = (-1, (0,) * len(direction))
    read = [tuple(-s * o for s, o in zip(direction, tap, strict=True)) for tap in reach]
    return sorted([here, *enumerate(read)], key=lambda pair: pair[1])


@dataclass(frozen=True, eq=False)
class Layout:
    """The layout of the buffer, counted in array elements, not bytes."""

    length: int  # length of the buffer
    start: int  # position of the first pixel of sample 0
    strides: tuple[int, ...]  # strides of the images (B, C, *shape)
    pitch: int  # distance from a row of a wavefront's matrix to the next
    # the numbers that a pixel reads, in the order of memory: ``many`` runs of ``run`` numbers, the
    # first one ``shift`` after the pixel, each next one ``step`` further
    blocks: tuple[Block, ...]
    # start and number of pixels of each wavefront, in the order of the solve
    steps: tuple[tuple[int, int], ...]
    longest: int  # number of pixels of the longest wavefront


@functools.lru_cache(maxsize=64)
def layout(shape: tuple[int, ...], reach: tuple[Offset, ...], direction: tuple[int, ...]) -> Layout:
    """Return the layout of a solve of images (B, C, *shape), not empty, without dilation."""
    batch, channels, *grid = shape
    if len(grid) == 1:  # an image of one row
        flat = layout((*shape[:2], 1, *grid), tuple((0, *o) for o in reach), (1, *direction))
        return replace(flat, strides=(*flat.strides[:2], *flat.strides[3:]))
    depth = [max([0, *(abs(o[axis]) for o in reach)]) for axis in range(len(grid))]
    slope = 1 + max([0, *(-o[-1] for o in reach if not any(o[:-2]))])
    lean = slope * direction[-2] * direction[-1]
    # one gap of zeros serves the two rows on both its sides
    pitch = (grid[-1] + depth[-1] + max(0, -lean)) * channels
    pitch += _LINE if pitch % _POWER == 0 else 0
    strides = [batch * pitch + lean * channels, channels]
    for axis in reversed(range(1, len(grid) - 1)):
        strides.insert(0, (grid[axis] + depth[axis]) * strides[0])
    order = order_in_memory(reach, direction)
    shifts = [sum(o * s for o, s in zip(offset, strides, strict=True)) for _, offset in order]
    start = -min(shifts)
    last = sum((n - 1) * s for n, s in zip((batch, *grid), (pitch, *strides), strict=True))
    steps = _steps(batch, tuple(grid), tuple(strides), direction, slope)
    return Layout(
        length=start + last + max(shifts) + channels,
        start=start,
        strides=(pitch, 1, *strides),
        pitch=pitch,
        blocks=_blocks(shifts, channels),
        steps=tuple((start + place, count) for place, count in steps),
        longest=max(count for _, count in steps),
    )


def _blocks(shifts: list[int], channels: int) -> tuple[Block, ...]:
    """Join pixels that follow each other into runs, and runs at equal distances into blocks."""
    runs: list[tuple[int, int]] = []
    for shift in shifts:
        if runs and shift == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + channels)
        else:
            runs.append((shift, channels))
    blocks: list[Block] = []
    for shift, run in runs:
        first, step, many, length = blocks[-1] if blocks else (0, 0, 0, 0)
        distance = shift - first if many == 1 else step
        if run == length and distance > 0 and shift == first + many * distance:
            blocks[-1] = (first, distance, many + 1, run)
        else:
            blocks.append((shift, 0, 1, run))
    return tuple(blocks)


def _steps(
    batch: int,
    grid: tuple[int, ...],
    strides: tuple[int, ...],
    direction: tuple[int, ...],
    slope: int,
) -> list[tuple[int, int]]:
    """Return (place, count) of every wavefront, places from the first pixel of sample 0 on.

    Row i, counted along the direction, is solved ``slope`` pixels behind the one before.
    """
    *_, height, width = grid
    (up, along), (row, column) = direction[-2:], strides[-2:]
    corner = (height - 1) * row * (up < 0) + (width - 1) * column * (along < 0)
    waves = []
    for level in range(width + slope * (height - 1)):
        low, top = max(0, -((width - 1 - level) // slope)), min(height - 1, level // slope)
        if low <= top:
            i = low if up > 0 else top  # the row that comes first in memory
            place = corner + up * i * row + along * (level - slope * i) * column
            waves.append((place, (top - low + 1) * batch))
    others = zip(grid[:-2], direction[:-2], strides[:-2], strict=True)
    planes = itertools.product(*([i * s for i in range(n)[::d]] for n, d, s in others))
    return [(sum(plane) + place, count) for plane in planes for place, count in waves]
