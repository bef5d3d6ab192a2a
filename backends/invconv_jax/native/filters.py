"""The primitive `filtered`: sections of recursive filters.

On a CPU a section is one call of the compiled kernel; elsewhere, and in a program that JAX exports,
it runs by the solves that JAX has there. Its derivatives are `invconv.operators.recursion`'s. Rows
of an array hold the state and the signal behind it, and those of the result the output and the last
state, so that a call has one result of its last argument's type.
"""

from typing import Any

import jax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv.kernels.cpu import machine
from invconv.kernels.cpu import xla as cpu
from invconv.kernels.cpu.recursive import Filter
from invconv.operators import recursion
from invconv_jax.native.partition import Settings, SplitByBatch
from invconv_jax.native.wavefront import register
from invconv_jax.private import (
    Zero,
    is_undefined_primal,
    primitive_batchers,
    primitive_jvps,
    primitive_of,
    primitive_transposes,
)


def filtered(b: Array, a: Array, x: Array, z: Array | None) -> tuple[Array, Array | None]:
    """See `invconv.operators.recursion.filtered`."""
    return recursion.in_sections(_section, b, a, x, z)


@jax.jit  # type: ignore[untyped-decorator]
def _section(b: Array, a: Array, x: Array, z: Array) -> Array:
    return _split(b, a, jnp.concatenate([z, x], -1), order=z.shape[-1])


def _by_solves(b: Array, a: Array, given: Array, *, order: int) -> Array:
    v: Array = recursion.by_solves(b, a, given[..., order:], given[..., :order])
    return v


def _by_kernel(b: Array, a: Array, given: Array, *, order: int) -> Array:
    itemsize, (filters, signals, numbers) = given.dtype.itemsize, given.shape
    shape = Filter(1, b.shape[-1] - 1, a.shape[-1], order, b.shape[1] > 1)
    if not shape.compiles or machine.reason(itemsize):
        return _by_solves(b, a, given, order=order)
    name, code, steps = cpu.filter_call(shape, itemsize, filters, filters * signals, numbers)
    register(name, code, "cpu")
    call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(given.shape, given.dtype))
    v: Array = call(b, a, given, steps=steps)
    return v


_on_one_device = primitive_of("invconv_filter_call", _by_solves, cpu=_by_kernel)
_split = SplitByBatch("invconv_filter_split", _on_one_device.bind, (-3, -1))


def _jvp(arrays: Any, dots: Any, *, settings: Settings, **_: Any) -> tuple[Array, Array]:
    (b, a, given), order = arrays, dict(settings)["order"]
    b_dot, a_dot, dot = (None if isinstance(d, Zero) else d for d in dots)
    of_signals: Any = (None, None) if dot is None else (dot[..., order:], dot[..., :order])
    v, moved = _split(*arrays, order=order), (b_dot, a_dot, *of_signals)
    return v, recursion.tangent(_section, b, a, given[..., order:], v, moved)


def _transpose(
    bar: Any, b: Any, a: Array, given: Any, *, settings: Settings, **_: Any
) -> list[Any]:
    """Pull a cotangent back through the signals and states, or through b: it is linear in each."""
    if isinstance(bar, Zero):
        return [None, None, None]
    order, linear = dict(settings)["order"], is_undefined_primal(b)
    b, x = (jnp.zeros(b.aval.shape, bar.dtype), given[..., order:]) if linear else (b, None)
    wanted = (linear, False, not linear, not linear)
    bars = recursion.cotangents(_section, b, a, x, x, bar, wanted, order)
    return [bars[0], None, None if linear else jnp.concatenate([bars[3], bars[2]], -1)]


def _vectorise(
    arrays: tuple[Array, ...], axes: tuple[int | None, ...], *, settings: Settings, **_: Any
) -> tuple[Array, int]:
    """Run filters of a batch as more filters."""
    pairs = [*zip(arrays, axes, strict=True)]
    (count,) = {array.shape[axis] for array, axis in pairs if axis is not None}
    moved = [
        jnp.broadcast_to(v, (count, *v.shape)) if axis is None else jnp.moveaxis(v, axis, 0)
        for v, axis in pairs
    ]
    flat = (v.reshape(count * v.shape[1], *v.shape[2:]) for v in moved)  # of no taps, too
    return _split(*flat, **dict(settings)).reshape(moved[-1].shape), 0


primitive_jvps[_split.primitive] = _jvp
primitive_transposes[_split.primitive] = _transpose
primitive_batchers[_split.primitive] = _vectorise
