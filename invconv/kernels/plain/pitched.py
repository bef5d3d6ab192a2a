"""The plain wavefront: an autoregressive solve by one matrix product a wavefront, on any library.

It runs if no kernel is compiled. All images lie in one flat buffer, channels last, with zeros
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

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, device, identity, namespace, zeros
from invconv.kernels.plain.layout import Layout, layout, order_in_memory
from invconv.kernels.primitives import matmul, triangular_solve
from invconv.kernels.wavefront import CausalStencil


def assign(target: Array, source: Array) -> None:
    """Copy an array into another one."""
    target[...] = source


def substitute(diagonal: Array, rows: Array, lower: bool) -> Array:
    """Return D^-1 applied to every row (M, C)."""
    return triangular_solve(diagonal, rows.T, lower=lower).T


@dataclass(frozen=True)
class StridedOps:
    """Functions of a library that the wavefront needs; module-level ones, so that they pickle."""

    # (x, shape, strides, start): a view of the memory of ``x``. The last two count numbers.
    as_strided: Callable[[Array, tuple[int, ...], tuple[int, ...], int], Array]
    # (a, b, out): puts the product A B into ``out``; its rows need not be adjacent
    matmul: Callable[[Array, Array, Array], object]
    # (x): a context in which products on the device of ``x`` keep all digits
    exact: Callable[[Array], AbstractContextManager[object]]
    # (target, source): copies an array into another one
    copy: Callable[[Array, Array], object] = assign
    # (D, rows, lower): solves for every row (M, C) by substitution with D
    substitute: Callable[[Array, Array, bool], Array] = substitute


@dataclass(frozen=True, eq=False)
class PitchedSolver:
    """The map y -> x, both (B, C, *shape), that solves ``causal.stencil()`` x = y."""

    causal: CausalStencil
    # shape (C, C): D^-1 if it may be used, see `invconv.kernels.wavefront.inverse_at_the_pixel`
    inverse: Array | None
    shape: Shape  # the grid
    ops: StridedOps  # functions of the arrays' library
    # the stencil without the taps that reach beyond the grid everywhere, and M
    _kept: CausalStencil = field(init=False, repr=False)
    _weights: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kept = self.causal.within(self.shape)
        object.__setattr__(self, "_kept", kept)
        object.__setattr__(self, "_weights", _weights(kept, self.inverse))

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs; "levels" is how many wavefronts follow each other."""
        corner = "triangular solve" if self.inverse is None else "cached inverse"
        shapes = [np.broadcast_to(0, self.shape)[part].shape for part in self._residues()]
        levels = sum(len(self._layout((1, 1, *shape)).steps) for shape in shapes)
        return {"method": "pitched wavefront", "at the pixel": corner, "levels": levels}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *shape)."""
        if 0 in y.shape:
            return y
        x = namespace(y).empty(y.shape, dtype=y.dtype, device=device(y))
        with self.ops.exact(y):
            for part in self._residues():
                self._wave(y[part], x[part])
        return x

    def _residues(self) -> list[tuple[Any, ...]]:
        """Return an index for each residue class of pixels modulo the dilation."""
        every = [[slice(i, None, d) for i in range(d)] for d in self._kept.dilation]
        return [(..., *part) for part in itertools.product(*every)]

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        return layout(shape, self._kept.reach, self._kept.direction)

    def _wave(self, y: Array, x: Array) -> None:
        """Put the solution of images without dilation into ``x``."""
        ops, causal, weights, shape = self.ops, self.causal, self._weights, tuple(y.shape)
        plan, (depth, channels) = self._layout(shape), weights.shape
        buffer = zeros((plan.length,), y)
        images = ops.as_strided(buffer, shape, plan.strides, plan.start)
        ops.copy(images, y)
        read = zeros((plan.longest, depth), y)  # [y, x at every tap] of a wavefront
        targets, column = [], 0
        for _, _, many, run in plan.blocks:
            kept = ops.as_strided(read, (plan.longest, many, run), (depth, run, 1), column)
            targets.append(kept)
            column += many * run
        for place, count in plan.steps:
            for target, (shift, step, many, run) in zip(targets, plan.blocks, strict=True):
                part, strides = (count, many, run), (plan.pitch, step, 1)
                ops.copy(target[:count], ops.as_strided(buffer, part, strides, place + shift))
            front = ops.as_strided(buffer, (count, channels), (plan.pitch, 1), place)
            ops.matmul(read[:count], weights, front)
            if self.inverse is None:
                ops.copy(front, ops.substitute(causal.diagonal, front, causal.lower))
        ops.copy(x, images)


def _weights(causal: CausalStencil, inverse: Array | None) -> Array:
    """Return M, ((1 + T) C, C), its blocks in the order of `order_in_memory`."""
    xp, taps = namespace(causal.taps), -causal.taps
    here = identity(causal.diagonal.shape[0], taps) if inverse is None else inverse
    if inverse is not None and causal.reach:
        taps = matmul(inverse, taps)
    order = order_in_memory(causal.reach, causal.direction)
    parts = [here if t < 0 else taps[t, ...] for t, _ in order]
    return xp.concat([xp.matrix_transpose(part) for part in parts], axis=0)


def _as_strided(
    x: np.ndarray[Any, Any], shape: tuple[int, ...], strides: tuple[int, ...], start: int
) -> np.ndarray[Any, Any]:
    """Return a view; NumPy refuses one that would leave the array."""
    size = x.itemsize
    return np.ndarray(shape, x.dtype, x, start * size, [s * size for s in strides])


def _quiet(x: np.ndarray[Any, Any]) -> np.errstate:
    """Silence products: see `kernels.numpy_primitives`; and an inverse may overflow."""
    return np.errstate(invalid="ignore", over="ignore")


NUMPY = StridedOps(_as_strided, np.matmul, _quiet)
