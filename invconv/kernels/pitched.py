"""Wavefronts (`kernels.wavefront`) by one matrix product each, for libraries with strided views.

They run if no kernel is compiled. All images lie in one flat buffer, channels last, with zeros
around each. In two dimensions the C numbers of pixel (i, j) of sample b, one of B, start at

    start + i row + b pitch + j C        with row = B pitch + slope C,

so that the distance from the last sample at (i, j) to the first at (i + 1, j - slope), the next
pixel of the wavefront, is one pitch, as from sample to sample. So a whole wavefront is *one*
strided matrix, and the pixels that a tap reads for it are another one, a fixed distance before it:
nothing is gathered by index. The buffer holds y, and x overwrites it as the wave passes:

    x = [y at the pixel, x at every tap] M        M = D^-T above the -(D^-1 taps)^T

or, if D^-1 would cost accuracy, M without D^-1 and then a triangular solve.

- If the two directions differ, the slope is negative: nothing is flipped.
- With more than two axes, the planes of the last two follow each other in the same buffer.
- With dilation d, the residue classes of pixels modulo d are independent: they are separate images.
"""

import functools
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, identity, namespace, zeros
from invconv.arrays.stencil import CausalStencil, Offset, dot
from invconv.kernels.primitives import Plan, matmul, triangular_solve


def substitute(diagonal: Array, rows: Array, lower: bool) -> Array:
    """Return D^-1 applied to every row (M, C)."""
    return triangular_solve(diagonal, rows.T, lower=lower).T


@dataclass(frozen=True)
class StridedOps:
    """Functions of a library that the wavefront needs; NumPy's are module-level, to be pickled."""

    # (x, shape, strides, start): a view of the memory of ``x``. The last two count numbers.
    as_strided: Callable[[Array, tuple[int, ...], tuple[int, ...], int], Array]
    # (a, b, out): puts the product A B into ``out``; its rows need not be adjacent
    matmul: Callable[[Array, Array, Array], object]
    # (x): a context in which products on the device of ``x`` run in full precision
    exact: Callable[[Array], AbstractContextManager[object]]
    # (D, rows, lower): solves for every row (M, C) by substitution with D
    substitute: Callable[[Array, Array, bool], Array] = substitute


Block = tuple[int, int, int, int]


def order_in_memory(reach: tuple[Offset, ...], direction: Shape) -> list[tuple[int, Offset]]:
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
    pitch += 16 * (pitch % 512 == 0)  # pixels 512 numbers apart would share few cache sets
    strides = [batch * pitch + lean * channels, channels]
    for axis in reversed(range(1, len(grid) - 1)):
        strides.insert(0, (grid[axis] + depth[axis]) * strides[0])
    shifts = [dot(offset, strides) for _, offset in order_in_memory(reach, direction)]
    start = -min(shifts)
    last = dot((n - 1 for n in (batch, *grid)), (pitch, *strides))
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
        if run == length and shift == first + many * distance:
            blocks[-1] = (first, distance, many + 1, run)
        else:
            blocks.append((shift, 0, 1, run))
    return tuple(blocks)


def _steps(
    batch: int, grid: Shape, strides: Shape, direction: tuple[int, ...], slope: int
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


@dataclass(frozen=True, eq=False)
class PitchedSolver:
    """The map y -> x, both (B, C, *shape), that solves ``causal.stencil()`` x = y."""

    causal: CausalStencil
    # shape (C, C): D^-1 if it may be used, see `invconv.kernels.wavefront.inverse_at_the_pixel`
    inverse: Array | None
    shape: Shape  # the grid
    ops: StridedOps  # functions of the arrays' library
    _weights: Array = field(init=False)  # M

    def __post_init__(self) -> None:
        causal = self.causal.within(self.shape)
        vars(self).update(causal=causal, _weights=_weights(causal, self.inverse))

    @property
    def plan(self) -> Plan:
        corner = "triangular solve" if self.inverse is None else "cached inverse"
        shapes = [np.broadcast_to(0, self.shape)[part].shape for part in self._residues()]
        settings = self.causal.sweep.reach, self.causal.sweep.direction
        levels = sum(len(layout((1, 1, *shape), *settings).steps) for shape in shapes)
        return Plan("pitched wavefront", at_the_pixel=corner, levels=levels)

    def __call__(self, y: Array) -> Array:
        if 0 in y.shape:
            return y
        x = namespace(y).empty_like(y)
        with self.ops.exact(y):
            for part in self._residues():
                self._wave(y[part], x[part])
        return x

    def _residues(self) -> list[tuple[Any, ...]]:
        """Return an index for each residue class of pixels modulo the dilation."""
        every = [[slice(i, None, d) for i in range(d)] for d in self.causal.sweep.dilation]
        return [(..., *part) for part in itertools.product(*every)]

    def _wave(self, y: Array, x: Array) -> None:
        """Put the solution of images without dilation into ``x``."""
        ops, causal, weights, shape = self.ops, self.causal, self._weights, tuple(y.shape)
        plan = layout(shape, causal.sweep.reach, causal.sweep.direction)
        depth, channels = weights.shape
        buffer = zeros((plan.length,), y)
        images = ops.as_strided(buffer, shape, plan.strides, plan.start)
        images[...] = y
        read = zeros((plan.longest, depth), y)  # [y, x at every tap] of a wavefront
        targets, column = [], 0
        for _, _, many, run in plan.blocks:
            kept = ops.as_strided(read, (plan.longest, many, run), (depth, run, 1), column)
            targets.append(kept)
            column += many * run
        for place, count in plan.steps:
            for target, (shift, step, many, run) in zip(targets, plan.blocks, strict=True):
                part, strides = (count, many, run), (plan.pitch, step, 1)
                target[:count] = ops.as_strided(buffer, part, strides, place + shift)
            front = ops.as_strided(buffer, (count, channels), (plan.pitch, 1), place)
            ops.matmul(read[:count], weights, front)
            if self.inverse is None:
                front[...] = ops.substitute(causal.diagonal, front, causal.sweep.lower)
        x[...] = images


def _weights(causal: CausalStencil, inverse: Array | None) -> Array:
    """Return M, ((1 + T) C, C), its blocks in the order of `order_in_memory`."""
    xp, taps = namespace(causal.taps), -causal.others
    here = identity(taps.shape[-1], taps)
    if inverse is not None:
        here, taps = inverse, matmul(inverse, taps)
    order = order_in_memory(causal.sweep.reach, causal.sweep.direction)
    parts = [here if t < 0 else taps[t, ...] for t, _ in order]
    return xp.concat([xp.matrix_transpose(part) for part in parts])


def _as_strided(
    x: np.ndarray[Any, Any], shape: tuple[int, ...], strides: tuple[int, ...], start: int
) -> np.ndarray[Any, Any]:
    """Return a view; NumPy refuses one that would leave the array."""
    size = x.itemsize
    return np.ndarray(shape, x.dtype, x, start * size, [s * size for s in strides])


def _quiet(x: np.ndarray[Any, Any]) -> np.errstate:
    """Silence warnings of products (see `kernels.numpy_primitives`) and of overflow in inverses."""
    return np.errstate(invalid="ignore", over="ignore")


NUMPY = StridedOps(_as_strided, np.matmul, _quiet)
