"""Stencils through XLA's convolution, at full precision."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays import Array, Shape
from invconv.primitives import fold
from invconv.stencil import Offset, Stencil, reaching

# A product in TensorFloat-32 or bfloat16 would decide the result; the default allows both.
PRECISION = lax.Precision.HIGHEST

# cuDNN has convolutions of up to three spatial axes.
_CONVOLVED_AXES = 3


def correlate(stencil: Stencil, x: Array, *, wrap: bool = False) -> Array:
    """See `invconv.primitives.correlate`."""
    return _correlate(stencil.taps, x, stencil.offsets, wrap)


@functools.partial(jax.jit, static_argnames=("offsets", "wrap"))
def correlate_kernel_vjp(
    x: Array, y_bar: Array, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Array:
    """See `invconv.primitives.correlate_kernel_vjp`; JAX transposes `correlate`."""
    channels = x.shape[1]
    taps = jax.ShapeDtypeStruct((len(offsets), channels, channels), x.dtype)
    transpose = jax.linear_transpose(lambda taps: _correlate(taps, x, offsets, wrap), taps)
    return transpose(y_bar)[0]


@functools.partial(jax.jit, static_argnames=("offsets", "wrap"))
def _correlate(taps: Array, x: Array, offsets: tuple[Offset, ...], wrap: bool) -> Array:
    """Correlate x (B, C, *spatial) with taps (T, C, C)."""
    shape = x.shape[2:]
    if wrap:
        offsets = tuple(fold(offset, shape) for offset in offsets)
    kept = reaching(offsets, shape)
    return _convolve(taps, x, {t: offsets[t] for t in kept}, wrap)


def _convolve(taps: Array, x: Array, offsets: dict[int, Offset], wrap: bool) -> Array:
    """Correlate with the taps at the keys of ``offsets``."""
    ndim = x.ndim - 2
    if ndim > _CONVOLVED_AXES:
        return _axis_by_axis(taps, x, offsets, wrap)
    boxes = [_Box.around([o[a] for o in offsets.values()]) for a in range(ndim)]
    padding = [(box.before, box.after) for box in boxes]
    if wrap:
        x = jnp.pad(x, [(0, 0), (0, 0), *padding], mode="wrap")
        padding = [(0, 0)] * ndim
    return lax.conv_general_dilated(
        x,
        _dense(taps, offsets, boxes),
        window_strides=(1,) * ndim,
        padding=padding,
        rhs_dilation=tuple(box.step for box in boxes),
        precision=PRECISION,
    )


def _axis_by_axis(taps: Array, x: Array, offsets: dict[int, Offset], wrap: bool) -> Array:
    """Sum over the shifts along the first axis, which is a batch axis of the other ones."""
    batch, channels, n, *rest = x.shape
    box = _Box.around([o[0] for o in offsets.values()])
    pads = [(0, 0), (0, 0), (box.before, box.after), *[(0, 0)] * len(rest)]
    padded = jnp.pad(x, pads, mode="wrap" if wrap else "constant")
    y = jnp.zeros((batch * n, channels, *rest), x.dtype)
    for shift in sorted({o[0] for o in offsets.values()}):
        window = lax.slice_in_dim(padded, box.before + shift, box.before + shift + n, axis=2)
        rows = jnp.moveaxis(window, 2, 1).reshape(y.shape)
        here = {t: o[1:] for t, o in offsets.items() if o[0] == shift}
        y = y + _convolve(taps, rows, here, wrap)
    return jnp.moveaxis(y.reshape(batch, n, channels, *rest), 1, 2)


class _Box:
    """The evenly spaced offsets along one axis, zero among them, that hold all given ones."""

    def __init__(self, before: int, after: int, step: int) -> None:
        self.before, self.after, self.step = before, after, step

    @classmethod
    def around(cls, offsets: Sequence[int]) -> _Box:
        """Return the smallest one."""
        return cls(max(0, *(-o for o in offsets)), max(0, *offsets), math.gcd(*offsets) or 1)

    @property
    def size(self) -> int:
        """How many offsets it holds."""
        return (self.before + self.after) // self.step + 1

    def place(self, offset: int) -> int:
        """Return the position of an offset in it."""
        return (offset + self.before) // self.step


def _dense(taps: Array, offsets: dict[int, Offset], boxes: list[_Box]) -> Array:
    """Return a kernel (C, C, *box) with the taps in their places; those of one place add up."""
    channels = taps.shape[1]
    sizes: Shape = tuple(box.size for box in boxes)
    kernel = jnp.zeros((*sizes, channels, channels), taps.dtype)
    places = [[box.place(o[a]) for o in offsets.values()] for a, box in enumerate(boxes)]
    kernel = kernel.at[tuple(jnp.asarray(p, int) for p in places)].add(
        taps[jnp.asarray(list(offsets), int)]
    )
    return jnp.moveaxis(kernel, (-2, -1), (0, 1))
