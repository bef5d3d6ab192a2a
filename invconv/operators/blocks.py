"""Signals and images in blocks along the first spatial axis: the pixels that precede a block.

    K [before, x] = [..., K x + c]

with c what the taps read of the pixels before x. Only the first r rows of c are not zero, r the
reach of the taps, the number of rows of ``before``. With direction -1 along the first spatial axis
the taps read what follows a block: then ``before`` lies behind x, and c is not zero in its last
rows.
"""

from typing import Any

from invconv.arrays.array_ops import ops_of
from invconv.arrays.namespaces import Array, cast, namespace
from invconv.arrays.validation import require_alike
from invconv.families.convolutions import Causal
from invconv.families.family import BOTH
from invconv.kernels import maps
from invconv.kernels.primitives import pad
from invconv.operators.base.calls import Call


def resized(x: Array, length: int, *, last: bool = False) -> Array:
    """Return the first rows of x (B, C, n, ...), or the last ones, zeros where x has none."""
    missing = length - int(x.shape[2])
    if missing > 0:
        return pad(x, 2, missing * last, missing * (not last))
    return x[:, :, -missing:, ...] if last else x[:, :, :length, ...]


def carried_over(family: Causal, kernel: Array, before: Array) -> Array:
    """Return the r rows of c that are not zero, by ``before`` (B, C, r, ...)."""
    depth, ahead = int(before.shape[2]), family.direction[0] < 0
    if not depth:
        return before
    y = maps.apply(family, kernel, resized(before, 2 * depth, last=ahead))
    return resized(y, depth, last=not ahead)


def added(x: Array, c: Array, *, last: bool) -> Array:
    """Return x + c, with c in the first rows of x or in the last ones, cut off where x is short."""
    here = min(int(c.shape[2]), int(x.shape[2]))
    there = int(x.shape[2]) - here
    parts = [resized(x, here, last=last) + resized(c, here, last=last)]
    parts.insert(not last, resized(x, there, last=not last))
    return namespace(x).concat(parts, axis=2)


def carried_over_vjp(
    family: Causal, kernel: Array, before: Array, c_bar: Array
) -> tuple[Array, Array]:
    """Return the gradients of <c_bar, c> by the kernel and by ``before``."""
    depth, ahead = int(before.shape[2]), family.direction[0] < 0
    if not depth:
        return namespace(kernel).zeros_like(kernel), before
    x = resized(before, 2 * depth, last=ahead)
    y_bar = resized(resized(c_bar, depth, last=ahead), 2 * depth, last=not ahead)
    kernel_bar, x_bar = maps.apply_vjp(family, kernel, x, y_bar, BOTH)
    return kernel_bar, resized(x_bar, depth, last=ahead)


def as_before(call: Call, family: Causal, before: Any) -> Array:
    """Validate and flatten the pixels that precede the block of a call."""
    require_alike("before", before, call.name, call.original)
    depth, shape = family.reaches_back(0), tuple(call.original.shape)
    axis = len(shape) - len(call.spatial_shape)
    expected = (*shape[:axis], depth, *shape[axis + 1 :])
    if tuple(before.shape) != expected:
        ahead = family.direction[0] < 0
        place = "first rows behind" if ahead else "last rows before"
        raise ValueError(
            f"before: expected the shape {expected}, since the taps reach {depth} pixels along the "
            f"first spatial axis, got {tuple(before.shape)}; give the {place} this block, "
            "zeros beyond the border"
        )
    flat = (*call.x.shape[:2], depth, *call.x.shape[3:])
    before = ops_of(before).spread(before, call.x)
    return namespace(before).reshape(cast(before, call.x.dtype), flat)
