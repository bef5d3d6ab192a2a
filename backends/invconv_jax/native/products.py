"""Convolutions and products at full precision, and solves with small matrices.

JAX's default allows products in TensorFloat-32 or bfloat16, which would decide the result. The
primitives `correlate` and `correlate_kernel_vjp` run the compiled kernel on a CPU, where XLA's own
convolution may take a hundred times as long. Elsewhere, in a program that JAX exports, and for half
types they run XLA's convolution, with one dilated kernel for offsets on a lattice. Solves keep a
batch on its devices.
"""

import functools
import math
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv.arrays.stencil import Offset, Stencil
from invconv.families.convolutions import StencilFamily
from invconv.kernels import maps, primitives
from invconv.kernels.cpu import machine
from invconv.kernels.cpu import xla as cpu
from invconv.kernels.primitives import TapGrid, grid_of
from invconv_jax import private
from invconv_jax.native.partition import Settings, SplitByBatch, beside


def correlate(stencil: Stencil, x: Array, *, wrap: bool = False) -> Array:
    """See `invconv.kernels.primitives.correlate`."""
    return _apply(StencilFamily.of(stencil.offsets, wrap), stencil.taps, x)


def correlate_kernel_vjp(
    x: Array, y_bar: Array, offsets: tuple[Offset, ...], *, wrap: bool = False
) -> Array:
    """See `invconv.kernels.primitives.correlate_kernel_vjp`."""
    return _gram(StencilFamily.of(offsets, wrap), x, y_bar)


@functools.partial(jax.jit, static_argnames="family")
def _apply(family: StencilFamily, taps: Array, x: Array) -> Array:
    return _split(len(family.offsets[0]), False)(beside(taps, x), x, family=family)


@functools.partial(jax.jit, static_argnames="family")
def _gram(family: StencilFamily, x: Array, y_bar: Array) -> Array:
    return _split(len(family.offsets[0]), True)(x, y_bar, family=family)


def _convolved(taps: Array, x: Array, *, family: StencilFamily) -> Array:
    """Correlate images (B, C, *shape) by XLA's convolution."""
    shape, offsets, wrap = x.shape[2:], family.offsets, family.wrap
    if 0 in shape or (grid := grid_of(offsets, wrap, shape)) is None:
        return jnp.zeros_like(x)
    if len(shape) > 3:  # more axes than cuDNN's convolutions have
        return primitives.correlate.agnostic(Stencil(offsets, taps), x, wrap=wrap)
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
    return jnp.moveaxis(y, -1, 1)


def _convolved_gram(x: Array, y_bar: Array, *, family: StencilFamily) -> Array:
    """Return the gradient by the taps; JAX transposes `_convolved`."""
    taps = jax.ShapeDtypeStruct(family.shape_of(x), x.dtype)
    transpose = jax.linear_transpose(lambda taps: _convolved(taps, x, family=family), taps)
    (taps_bar,) = transpose(y_bar)
    return taps_bar


def _by_kernel(a: Array, b: Array, *, family: StencilFamily, gradient: bool) -> Array:
    """Run the compiled kernel for taps and images, or for x and y_bar."""
    if b.dtype not in (np.float32, np.float64) or machine.reason(b.dtype.itemsize):
        return (_convolved_gram if gradient else _convolved)(a, b, family=family)
    shape = family.shape_of(b) if gradient else b.shape
    given = b.shape, family.offsets, family.wrap, b.dtype.itemsize, gradient
    if not b.size or (call := cpu.correlation_call(*given)) is None:
        return jnp.zeros(shape, b.dtype)
    private.register(call.name, call.code, "cpu")
    memory = jax.ShapeDtypeStruct((call.memory,), np.uint8)
    run = jax.ffi.ffi_call(call.name, (jax.ShapeDtypeStruct(shape, b.dtype), memory))
    return run(a, b, program=call.plan.numbers, room=call.room)[0]


_correlation, _gradient = (
    private.primitive_of(name, function, cpu=functools.partial(_by_kernel, gradient=gradient))
    for name, function, gradient in (
        ("invconv_correlation_call", _convolved, False),
        ("invconv_gram_call", _convolved_gram, True),
    )
)


@_gradient.def_abstract_eval  # type: ignore[untyped-decorator]
def _type_of_taps(x: Any, _: Any, *, family: StencilFamily) -> Any:
    return jax.core.ShapedArray(family.shape_of(x), x.dtype)


def _correlate(
    taps: Array, x: Array, *, family: StencilFamily, run: Any = _correlation.bind
) -> Array:
    """Correlate images with any number of batch axes, all on one device."""
    y: Array = run(taps, _in_one_batch(x, family), family=family)
    return y.reshape(x.shape)


def _correlate_vjp(
    x: Array, y_bar: Array, *, family: StencilFamily, run: Any = _gradient.bind
) -> Array:
    """Return the gradient by the taps, for images like `_correlate`'s."""
    taps_bar: Array = run(*(_in_one_batch(a, family) for a in (x, y_bar)), family=family)
    return taps_bar


def _in_one_batch(x: Array, family: StencilFamily) -> Array:
    image = -1 - len(family.offsets[0])
    return x.reshape(math.prod(x.shape[:image]), *x.shape[image:])


@functools.cache
def _split(ndim: int, gradient: bool) -> SplitByBatch:
    """Return A(w) x or gram(x, y), split between devices, with the rules of `kernels.maps`."""
    rules: Any = ("invconv_correlate", _correlate, _convolved, maps.apply_vjp)
    if gradient:
        rules = ("invconv_gram", _correlate_vjp, _convolved_gram, maps.gram_vjp)
    name, function, convolve, pull_back = rules
    split = SplitByBatch(name, function, tuple(range(-1 - ndim, 0)), summed=gradient)

    def jvp(arrays: Any, dots: Any, *, settings: Settings, **_: Any) -> tuple[Array, Any]:
        run = functools.partial(split, **dict(settings))
        dots = (None if isinstance(dot, private.Zero) else dot for dot in dots)
        return run(*arrays), maps.bilinear_jvp(run, *arrays, *dots)

    def transpose(bar: Any, *arrays: Any, settings: Settings, **_: Any) -> Any:
        if isinstance(bar, private.Zero):
            return None, None
        wanted = tuple(map(private.is_undefined_primal, arrays))
        return pull_back(dict(settings)["family"], *arrays, bar, wanted)

    def vectorise(arrays: Any, axes: Any, *, settings: Settings, program: Any) -> Any:
        """Join mapped images to the batch; else the kernel takes one element after the other."""
        if not gradient and axes[0] is None:
            return split.vectorise(arrays, axes, settings=settings, program=program)
        run, by_xla = functools.partial(split, **dict(settings)), dict(settings) | {"run": convolve}

        def one_by_one(*arrays: Array) -> Array:
            pairs = list(zip(arrays, axes, strict=True))
            each = {i: jnp.moveaxis(a, n, 0) for i, (a, n) in enumerate(pairs) if n is not None}
            return lax.map(lambda one: run(*(one.get(i, a) for i, a in enumerate(arrays))), each)

        at_once = jax.vmap(functools.partial(function, **by_xla), in_axes=axes)
        return lax.platform_dependent(*arrays, cpu=one_by_one, default=at_once), 0

    private.primitive_jvps[split.primitive] = jvp
    private.primitive_transposes[split.primitive] = transpose
    private.primitive_batchers[split.primitive] = vectorise
    return split


def _dense(taps: Array, grid: TapGrid) -> Array:
    """Return a kernel (*size, C_in, C_out) of the taps; taps at the same place add up."""
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
