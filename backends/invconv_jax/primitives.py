"""JAX's native primitives and `ArrayOps`, which `invconv.arrays.registry` looks up here."""

import functools
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from invconv.arrays.namespaces import Array, ArrayOps
from invconv.kernels.cpu import machine
from invconv.kernels.cpu import xla as cpu
from invconv.kernels.cpu.recursive import Filter
from invconv.operators import propagation, recursion
from invconv.operators.propagation import Propagation
from invconv_jax import private
from invconv_jax.native.exponential import counted as counted
from invconv_jax.native.exponential import exponential as exponential
from invconv_jax.native.exponential import exponential_gram as exponential_gram
from invconv_jax.native.partition import Settings, SplitByBatch, mesh_axes, on_the_mesh_of
from invconv_jax.native.products import correlate as correlate
from invconv_jax.native.products import correlate_kernel_vjp as correlate_kernel_vjp
from invconv_jax.native.products import matmul as matmul
from invconv_jax.native.products import triangular_solve as triangular_solve
from invconv_jax.native.spectrum import spectral_solver as spectral_solver
from invconv_jax.native.wavefront import causal_solver as causal_solver


class JaxOps(ArrayOps):
    """JAX's answers, for arrays and for tracers."""

    flushes_subnormals = True  # as XLA does
    gathers_transforms = True

    def require(self, name: str, x: Array) -> None:
        """Raise TypeError for float64 where JAX would take its bits for float32, or round it."""
        if not _exists(x.dtype):
            raise TypeError(
                f"{name}: expected float32, got float64, which JAX has here only inside "
                'jax.enable_x64(True), or after jax.config.update("jax_enable_x64", True)'
            )

    require_usable = require

    def nan_where(self, mask: Array, x: Array) -> Array:
        """See `ArrayOps.nan_where`; no array of NaN is made, which jax.debug_nans would report."""
        return jnp.where(mask, jnp.nan, x)

    def without_derivative(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x)

    def device(self, x: Array) -> None:
        """Return None: constants move to their operands, and a tracer has no device."""

    def placement(self, x: Array) -> frozenset[Any] | None:
        free = isinstance(x, jax.core.Tracer) or not x.committed
        return None if free else frozenset(x.devices())

    def place(self, x: Array, there: frozenset[Any]) -> Array:
        """Return x on the device of ``there``; a split over several devices is not followed."""
        (device,) = there if len(there) == 1 else (None,)
        return self.xp.asarray(x, device=device)

    def spread(self, x: Array, like: Array, axes: int | None = None) -> Array:
        spec = mesh_axes(like)[:axes]
        return x if mesh_axes(x) == spec else on_the_mesh_of(x, x, spec)

    def readable(self, x: Array) -> bool:
        traced = isinstance(x, jax.core.Tracer)
        return not traced and all(d.platform == "cpu" for d in x.devices())

    def at_once(self) -> AbstractContextManager[Any]:
        return jax.ensure_compile_time_eval()  # type: ignore[no-any-return]

    def same_kind(self, x: Array, like: Array) -> bool:
        """See `ArrayOps.same_kind`; also False if x is split along an axis after the first."""
        return bool(
            x.dtype == like.dtype
            and x.dtype.itemsize != 2
            and _exists(x.dtype)
            and self.placement(x) == self.placement(like)
            and not any(mesh_axes(x)[1:])
        )

    def copy(self, x: Array) -> Array:
        """Return the array itself, which nobody can edit."""
        return x

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        half = x.dtype.itemsize == 2 and x.dtype.kind not in "iu"
        return np.array(x, dtype=np.float32 if half else x.dtype)


def _exists(dtype: Any) -> bool:
    return bool(dtype != np.float64 or jax.config.jax_enable_x64)


ARRAY_OPS = JaxOps


@jax.custom_jvp  # type: ignore[untyped-decorator]
def nan_where_singular(x: Array, log_det: Array) -> Array:
    """See `primitives`; the derivative of `where` itself would keep an image of zeros."""
    return jnp.where(log_det == -jnp.inf, jnp.nan, x)


@nan_where_singular.defjvp  # type: ignore[untyped-decorator]
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, log_det = primals
    scale = jnp.where(log_det == -jnp.inf, jnp.nan, jnp.ones_like(log_det))
    return nan_where_singular(x, log_det), tangents[0] * scale


def filtered(b: Array, a: Array, x: Array, z: Array | None) -> tuple[Array, Array | None]:
    """See `invconv.operators.recursion.filtered`, which has the derivatives.

    On a CPU a section is one call of the compiled kernel; elsewhere, and in a program that JAX
    exports, it runs by the solves that JAX has there. A row of the last argument holds the state
    and then the signal, a row of the result the output and then the last state, so that a call has
    one result of its last argument's type.
    """
    return recursion.in_sections(_section, b, a, x, z)


@functools.partial(jax.jit, static_argnums=4)
def _section(b: Array, a: Array, x: Array, z: Array, back: bool = False) -> Array:
    return _split(b, a, jnp.concatenate([z, x], -1), order=z.shape[-1], back=back)


def _by_solves(b: Array, a: Array, given: Array, *, order: int, back: bool) -> Array:
    return recursion.by_solves(b, a, given[..., order:], given[..., :order], back)


def _by_kernel(b: Array, a: Array, given: Array, *, order: int, back: bool) -> Array:
    itemsize, (filters, signals, numbers) = given.dtype.itemsize, given.shape
    shape = Filter(1, b.shape[-1] - 1, a.shape[-1], order)
    if not shape.at_once or machine.reason(itemsize):
        return _by_solves(b, a, given, order=order, back=back)
    rows = filters, filters * signals
    name, code, steps = cpu.filter_call(shape, itemsize, *rows, numbers, back)
    private.register(name, code, "cpu")
    call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(given.shape, given.dtype))
    return call(b, a, given, steps=steps)


_on_one_device = private.primitive_of("invconv_filter_call", _by_solves, cpu=_by_kernel)
_split = SplitByBatch("invconv_filter_split", _on_one_device.bind, (-3, -1))


def _jvp(arrays: Any, dots: Any, *, settings: Settings, **_: Any) -> tuple[Array, Array]:
    (b, a, given), order, back = arrays, *dict(settings).values()
    b_dot, a_dot, dot = (None if isinstance(d, private.Zero) else d for d in dots)
    of_signals: Any = (None, None) if dot is None else (dot[..., order:], dot[..., :order])
    v, moved = _split(*arrays, order=order, back=back), (b_dot, a_dot, *of_signals)
    return v, recursion.tangent(_section, back, b, a, given[..., order:], v, moved)


def _transpose(
    bar: Any, b: Any, a: Array, given: Any, *, settings: Settings, **_: Any
) -> list[Any]:
    """Pull a cotangent back through signals and states, or through b: y is linear in each."""
    if isinstance(bar, private.Zero):
        return [None, None, None]
    (order, back), linear = dict(settings).values(), private.is_undefined_primal(b)
    b, x = (jnp.zeros(b.aval.shape, bar.dtype), given[..., order:]) if linear else (b, None)
    wanted = (linear, False, not linear, not linear)
    bars = recursion.cotangents(_section, back, b, a, x, x, bar, wanted, order)
    return [bars[0], None, None if linear else jnp.concatenate([bars[3], bars[2]], -1)]


def _vectorise(
    arrays: tuple[Array, ...], axes: tuple[int | None, ...], *, settings: Settings, **_: Any
) -> tuple[Array, int]:
    """Run a mapped batch as more filters."""
    moved = jax.vmap(lambda *each: each, in_axes=axes)(*arrays)  # all along the first axis
    flat = (v.reshape(v.shape[0] * v.shape[1], *v.shape[2:]) for v in moved)  # also without taps
    return _split(*flat, **dict(settings)).reshape(moved[-1].shape), 0


def lagged(g: Array, x: Array, c: Array) -> Array:
    """See `invconv.operators.recursion.lagged`.

    XLA's products of two vectors take longer on a CPU than its convolution with a signal as kernel.
    """
    return jax.lax.platform_dependent(
        g, x, c, cpu=_by_convolution, default=recursion.lagged.agnostic
    )


def _by_convolution(g: Array, x: Array, c: Array) -> Array:
    count, (*rows, length) = c.shape[-1], x.shape
    if not (count and x.size):
        return jnp.zeros((*rows, count), x.dtype)

    def one(pair: tuple[Array, Array]) -> Array:
        past, signal = (v[None, None] for v in pair)
        return jax.lax.conv_general_dilated(past, signal, (1,), "VALID")[0, 0, ::-1]

    before = jnp.pad(x, ((0, 0), (0, 0), (count - 1, 0)))
    pairs = before.reshape(-1, length + count - 1), g.reshape(-1, length)
    return jax.lax.map(one, pairs).reshape(*rows, count)


private.primitive_jvps[_split.primitive] = _jvp
private.primitive_transposes[_split.primitive] = _transpose
private.primitive_batchers[_split.primitive] = _vectorise


# --- recursions over images: `invconv.operators.propagation` -------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def propagated(family: Propagation, taps: Array, x: Array) -> Array:
    """See `invconv.operators.propagation.propagated`.

    On a CPU it is one call of the compiled kernel, elsewhere a loop over levels that XLA compiles.
    """
    return _propagate(taps, x, family=family)


def _by_scan(taps: Array, x: Array, *, family: Propagation) -> Array:
    return propagation.by_levels(family, taps, x, jax.lax.scan)


def _whole_image(taps: Array, x: Array, *, family: Propagation) -> Array:
    return _over_pixels.bind(taps, x, family=family)


def _by_handler(taps: Array, x: Array, *, family: Propagation) -> Array:
    if not family.compiled.compiles or machine.reason(x.dtype.itemsize):
        return _by_scan(taps, x, family=family)
    name, code, steps = cpu.propagation_call(family.compiled, x.dtype.itemsize, x.shape, taps.shape)
    private.register(name, code, "cpu")
    return jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(x.shape, x.dtype))(taps, x, steps=steps)


_over_pixels = private.primitive_of("invconv_propagate_call", _by_scan, cpu=_by_handler)
_propagate = SplitByBatch("invconv_propagate", _whole_image, (), shared=2)


def _propagate_jvp(arrays: Any, dots: Any, *, settings: Settings, **_: Any) -> tuple[Array, Array]:
    (taps, x), family = arrays, dict(settings)["family"]
    moved = (None if isinstance(d, private.Zero) else d for d in dots)
    h = propagated(family, taps, x)
    return h, propagation.tangent(propagated, family, taps, h, *moved)


def _propagate_transpose(
    bar: Any, taps: Array, x: Any, *, settings: Settings, **_: Any
) -> list[Any]:
    """Pull a cotangent back through the image alone: a tangent is linear in it."""
    if isinstance(bar, private.Zero):
        return [None, None]
    return [None, propagated(dict(settings)["family"].transpose(), taps, bar)]


def _propagate_each(
    arrays: tuple[Array, ...], axes: tuple[int | None, ...], *, settings: Settings, **_: Any
) -> tuple[Array, int]:
    """Run a mapped batch as more images; taps that all samples share stay one array."""
    taps, x = (
        jnp.expand_dims(v, 0) if axis is None else jnp.moveaxis(v, axis, 0)
        for v, axis in zip(arrays, axes, strict=True)
    )
    many = max(taps.shape[0], x.shape[0])
    x = jnp.broadcast_to(x, (many, *x.shape[1:]))
    if taps.shape[0] * taps.shape[1] > 1:
        taps = jnp.broadcast_to(taps, (many, x.shape[1], *taps.shape[2:]))
    flat = (v.reshape(-1, *v.shape[2:]) for v in (taps, x))
    return propagated(dict(settings)["family"], *flat).reshape(x.shape), 0


private.primitive_jvps[_propagate.primitive] = _propagate_jvp
private.primitive_transposes[_propagate.primitive] = _propagate_transpose
private.primitive_batchers[_propagate.primitive] = _propagate_each
