"""Convolutions and products at full precision, and solves with small matrices.

JAX's default allows products in TensorFloat-32 or bfloat16, which would decide the result. The
primitives `correlate` and `correlate_kernel_vjp` are XLA's convolution; offsets on a lattice
make one dilated kernel. Solves keep a batch on its devices.
"""

import functools
import math

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv.arrays.stencil import Offset, Stencil
from invconv.kernels import primitives
from invconv.kernels.primitives import TapGrid, grid_of
from invconv_jax.native.partition import SplitByBatch, beside, whole


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
    taps, x = whole(beside(taps, x), 0), whole(x)
    shape = x.shape[2:]
    if len(shape) > 3:  # more than cuDNN's convolutions have
        return whole(primitives.correlate.agnostic(Stencil(offsets, taps), x, wrap=wrap))
    grid = grid_of(offsets, wrap, shape)
    if grid is None:
        return jnp.zeros_like(x)
    padding = [(-low, high) for low, high in zip(grid.low, grid.high, strict=True)]
    if wrap:
        x = jnp.pad(x, [(0, 0), (0, 0), *padding], mode="wrap")
        padding = [(0, 0)] * len(shape)
    spatial = "DHW"[3 - len(shape) :]
    y = lax.conv_general_dilated(
        jnp.moveaxis(x, 1, -1),
        _dense(taps, grid),
        window_strides=(1,) * len(shape),
        padding=padding,
        rhs_dilation=grid.spacing,
        # the layout in which XLA's convolution is fast on a CPU, also inside loops
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        precision=lax.Precision.HIGHEST,
    )
    return whole(jnp.moveaxis(y, -1, 1))


def _dense(taps: Array, grid: TapGrid) -> Array:
    """Return a kernel (*size, C_in, C_out) with the taps in their places; taps at one place add."""
    channels = taps.shape[1:]
    kernel = jnp.zeros((math.prod(grid.size), *channels), taps.dtype)
    kernel = kernel.at[jnp.asarray(grid.places)].add(taps[jnp.asarray(grid.taps)])
    return jnp.swapaxes(kernel.reshape(*grid.size, *channels), -2, -1)


def _substitute(matrix: Array, rhs: Array, *, lower: bool) -> Array:
    rows = rhs.reshape(rhs.shape[0], -1)
    x = lax.linalg.triangular_solve(matrix, rows, left_side=True, lower=lower)
    return x.reshape(rhs.shape)


def _eliminate(matrices: Array, rhs: Array) -> Array:
    columns = rhs.reshape(*rhs.shape[:2], -1)
    return jnp.linalg.solve(matrices, columns).reshape(rhs.shape)


substitute = SplitByBatch("invconv_substitute", _substitute, (0,))
eliminate = SplitByBatch("invconv_eliminate", _eliminate, (0, 1))


@jax.jit  # type: ignore[untyped-decorator]
def matmul(a: Array, b: Array) -> Array:
    """See `invconv.kernels.primitives.matmul`."""
    return jnp.matmul(beside(a, b), beside(b, a), precision=lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames="lower")
def triangular_solve(matrix: Array, rhs: Array, *, lower: bool) -> Array:
    """See `invconv.kernels.primitives.triangular_solve`."""
    return lax.custom_linear_solve(
        lambda x: matmul(matrix, x),
        rhs,
        lambda _, b: substitute(matrix, b, lower=lower),
        lambda _, b: substitute(matrix.mT, b, lower=not lower),
    )
