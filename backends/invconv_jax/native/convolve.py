"""The primitives `correlate` and `correlate_kernel_vjp` by XLA's convolution, at full precision.

Offsets on a lattice make one dilated kernel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array, Shape, mesh_axes
from invconv.arrays.stencil import Offset, Stencil, reaching
from invconv.kernels.primitives import fold
from invconv_jax.native.partition import beside, whole

# JAX's default allows products in TensorFloat-32 or bfloat16, which would decide the result.
PRECISION = lax.Precision.HIGHEST

# cuDNN has convolutions of up to three spatial axes.
_CONVOLVED_AXES = 3


def correlate(stencil: Stencil, x: Array, *, wrap: bool = False) -> Array:
    """See `invconv.kernels.primitives.correlate`."""
    return _correlate(stencil.taps, x, stencil.offsets, wrap)


@functools.partial(jax.jit, static_argnames=("offsets", "wrap"))
def correlate_kernel_vjp(
    x: Array, y_bar: Array, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Array:
    """See `invconv.kernels.primitives.correlate_kernel_vjp`."""
    x, y_bar = whole(x), whole(y_bar)
    channels, shape = x.shape[1], x.shape[2:]
    if len(shape) > _CONVOLVED_AXES or any(mesh_axes(x)):  # JAX transposes `correlate`
        taps = jax.ShapeDtypeStruct((len(offsets), channels, channels), x.dtype)
        transpose = jax.linear_transpose(lambda taps: _correlate(taps, x, offsets, wrap), taps)
        return transpose(y_bar)[0]
    if wrap:
        offsets = tuple(fold(offset, shape) for offset in offsets)
    kept = reaching(offsets, shape)
    boxes = [_Box.around([offsets[t][a] for t in kept]) for a in range(len(shape))]
    padding = [(0, 0), (0, 0), *((box.before, box.after) for box in boxes)]
    x = jnp.pad(x, padding, mode="wrap" if wrap else "constant")
    # a convolution of x with y_bar that sums over samples
    taps_bar = lax.conv_general_dilated(
        jnp.moveaxis(x, 0, -1),
        jnp.moveaxis(y_bar, (0, 1), (-2, -1)),
        window_strides=tuple(box.step for box in boxes),
        padding=[(0, 0)] * len(shape),
        dimension_numbers=_channels_last(len(shape)),
        precision=PRECISION,
    )
    blank = jnp.zeros((channels, channels), x.dtype)
    places = {
        t: tuple(box.place(o) for box, o in zip(boxes, offsets[t], strict=True)) for t in kept
    }
    return jnp.stack(
        [taps_bar[:, *places[t], :].T if t in places else blank for t in range(len(offsets))]
    )


@functools.partial(jax.jit, static_argnames=("offsets", "wrap"))
def _correlate(taps: Array, x: Array, offsets: tuple[Offset, ...], wrap: bool) -> Array:
    """Correlate x (B, C, *spatial) with taps (T, C, C)."""
    shape = x.shape[2:]
    if wrap:
        offsets = tuple(fold(offset, shape) for offset in offsets)
    kept = reaching(offsets, shape)
    y = _convolve(whole(beside(taps, x), 0), whole(x), {t: offsets[t] for t in kept}, wrap)
    return whole(y)


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
    y = lax.conv_general_dilated(
        jnp.moveaxis(x, 1, -1),
        _dense(taps, offsets, boxes),
        window_strides=(1,) * ndim,
        padding=padding,
        rhs_dilation=tuple(box.step for box in boxes),
        dimension_numbers=_channels_last(ndim),
        precision=PRECISION,
    )
    return jnp.moveaxis(y, -1, 1)


def _channels_last(ndim: int) -> tuple[str, str, str]:
    """Return the layout in which XLA's convolution is fast on a CPU, also inside loops."""
    spatial = "DHW"[3 - ndim :]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"


def _axis_by_axis(taps: Array, x: Array, offsets: dict[int, Offset], wrap: bool) -> Array:
    """Sum over the shifts along the first axis, which is a batch axis for the other axes."""
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
    """Evenly spaced offsets along one axis that include zero and all given offsets."""

    def __init__(self, before: int, after: int, step: int) -> None:
        self.before, self.after, self.step = before, after, step

    @classmethod
    def around(cls, offsets: Sequence[int]) -> _Box:
        """Return the smallest box of some offsets."""
        return cls(max(0, *(-o for o in offsets)), max(0, *offsets), math.gcd(*offsets) or 1)

    @property
    def size(self) -> int:
        """The number of offsets of the box."""
        return (self.before + self.after) // self.step + 1

    def place(self, offset: int) -> int:
        """Return the position of an offset in the box."""
        return (offset + self.before) // self.step


def _dense(taps: Array, offsets: dict[int, Offset], boxes: list[_Box]) -> Array:
    """Return a kernel (*box, C_in, C_out) with the taps in their places; taps at one place add."""
    channels = taps.shape[1]
    sizes: Shape = tuple(box.size for box in boxes)
    kernel = jnp.zeros((*sizes, channels, channels), taps.dtype)
    places = [[box.place(o[a]) for o in offsets.values()] for a, box in enumerate(boxes)]
    kernel = kernel.at[tuple(jnp.asarray(p, int) for p in places)].add(
        taps[jnp.asarray(list(offsets), int)]
    )
    return jnp.swapaxes(kernel, -2, -1)
