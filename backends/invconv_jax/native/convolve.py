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

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.stencil import Offset, Stencil, reaching
from invconv.kernels import primitives
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
    """See `invconv.kernels.primitives.correlate_kernel_vjp`; JAX transposes `correlate`."""
    x, y_bar = whole(x), whole(y_bar)
    taps = jax.ShapeDtypeStruct((len(offsets), x.shape[1], x.shape[1]), x.dtype)
    transpose = jax.linear_transpose(lambda taps: _correlate(taps, x, offsets, wrap), taps)
    return transpose(y_bar)[0]


@functools.partial(jax.jit, static_argnames=("offsets", "wrap"))
def _correlate(taps: Array, x: Array, offsets: tuple[Offset, ...], wrap: bool) -> Array:
    """Correlate x (B, C, *spatial) with taps (T, C, C)."""
    taps, x = whole(beside(taps, x), 0), whole(x)
    shape = x.shape[2:]
    if len(shape) > _CONVOLVED_AXES:
        return whole(primitives.correlate.agnostic(Stencil(offsets, taps), x, wrap=wrap))
    if wrap:
        offsets = tuple(fold(offset, shape) for offset in offsets)
    kept = {t: offsets[t] for t in reaching(offsets, shape)}
    boxes = [_Box.around([o[a] for o in kept.values()]) for a in range(len(shape))]
    padding = [(box.before, box.after) for box in boxes]
    if wrap:
        x = jnp.pad(x, [(0, 0), (0, 0), *padding], mode="wrap")
        padding = [(0, 0)] * len(shape)
    spatial = "DHW"[3 - len(shape) :]
    y = lax.conv_general_dilated(
        jnp.moveaxis(x, 1, -1),
        _dense(taps, kept, boxes),
        window_strides=(1,) * len(shape),
        padding=padding,
        rhs_dilation=tuple(box.step for box in boxes),
        # the layout in which XLA's convolution is fast on a CPU, also inside loops
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        precision=PRECISION,
    )
    return whole(jnp.moveaxis(y, -1, 1))


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
