"""Causal solves by the kernels of the core, which XLA calls without Python on a CPU and on CUDA.

A program that JAX compiles for another platform, or exports, has the loop of `native.scan` instead:
our kernels exist in this process only.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv.kernels.cpu import xla
from invconv.kernels.cpu.compiled import CompiledSolve
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cpu.geometry import geometry_of
from invconv.kernels.cuda.launch import Program
from invconv_jax.native import launches
from invconv_jax.native.fronts import Geometry
from invconv_jax.native.partition import SplitByBatch
from invconv_jax.native.scan import Scan
from invconv_jax.private import (
    Primitive,
    is_exported,
    lower_fun,
    primitive_batchers,
    register_lowering,
)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["platform"]
)
@dataclass(frozen=True, eq=False)
class Kernel:
    """A solve pixel after pixel, by a compiled kernel.

    Attributes
    ----------
    weights : array, or None
        The weights in the kernel's layout; None if every call computes them anew.
    platform : {"cpu", "cuda"}, or None
        The platform of the weights; other platforms ignore them.
    """

    weights: Array | None = None
    platform: str | None = None

    @staticmethod
    def of(factored: CompiledSolve, matrices: Array) -> Kernel:
        """Return the kernel with factored weights, put on the device of the matrices."""
        weights = jnp.asarray(factored.weights)
        if matrices.committed and matrices.is_fully_replicated:
            weights = jax.device_put(weights, matrices.sharding)
        return Kernel(weights, "cpu")

    @staticmethod
    def on_cuda(geometry: Geometry, matrices: Array) -> Kernel | None:
        """Compute the weights on the device of the matrices; None if wavefronts must solve."""
        if not launches.on_cuda(matrices):
            return None
        program = launches.program_of(geometry, matrices.shape[-1], matrices.dtype)
        return None if program is None else Kernel(launches.weigh(program, matrices), "cuda")

    def transpose(self) -> Kernel:
        """Return the kernel for the transposed matrices, without weights."""
        return Kernel()

    def solve(self, geometry: Geometry, matrices: Array, y: Array) -> Array:
        """Return x, shape (B, C, *shape), for D and the taps (1 + T, C, C)."""
        if not isinstance(y.shape[0], int):  # a program that is exported for any batch
            return _by_scan(matrices, y, geometry=geometry)
        if y.size == 0:
            return y
        arrays = (matrices, y) if self.weights is None else (matrices, self.weights, y)
        return _split(len(geometry.shape))(*arrays, geometry=geometry, weighed=self.platform)


@functools.cache
def _split(ndim: int) -> SplitByBatch:
    return SplitByBatch("invconv_kernel", _solve, tuple(range(-1 - ndim, 0)))


def _solve(*arrays: Array, geometry: Geometry, weighed: str | None) -> Array:
    """Solve images of any number of batch axes, all on one device."""
    *others, y = arrays
    images = y.reshape(-1, *y.shape[-1 - len(geometry.shape) :])
    x: Array = _one_batch.bind(*others, images, geometry=geometry, weighed=weighed)
    return x.reshape(y.shape)


def _by_scan(
    matrices: Array, *others: Array, geometry: Geometry, weighed: str | None = None
) -> Array:
    way = Scan.of(matrices[0], geometry.lower)
    return way.solve(geometry, matrices, others[-1])


def _by_kernel(*arrays: Array, geometry: Geometry, weighed: str | None) -> Array:
    given, y = arrays[weighed == "cpu"], arrays[-1]
    g, itemsize, target = geometry, y.dtype.itemsize, host()
    settings = g.shape, g.reach, g.direction, g.dilation, g.lower, itemsize, target
    compiled = geometry_of(y.shape[1], *settings)
    call = xla.call(compiled, target, y.shape[0])
    with _lock:
        _register(
            call.name, xla.handler(target, itemsize, compiled.block, compiled.single, call.lanes)
        )
    memory = jax.ShapeDtypeStruct((call.memory,), np.uint8)
    run = jax.ffi.ffi_call(call.name, (jax.ShapeDtypeStruct(y.shape, y.dtype), memory))
    x: Array = run(given, y, program=call.program, room=call.room)[0]
    return x


_lock = threading.Lock()  # XLA refuses a second handler of a name


@functools.cache
def _register(name: str, code: Any) -> None:
    """Register a handler with XLA, which may run it until the process ends: its code stays."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(code))
    capsule = jax.ffi.pycapsule(code.address)
    jax.ffi.register_ffi_target(name, capsule, platform="cpu")


def _lower_for_cpu(context: Any, *arrays: Any, **settings: Any) -> Any:
    way = _by_scan if is_exported(context) else _by_kernel
    return lower_fun(way, multiple_results=False)(context, *arrays, **settings)


def _by_launches(
    program: Program, *arrays: Array, geometry: Geometry, weighed: str | None
) -> Array:
    weights = arrays[1] if weighed == "cuda" else launches.weigh(program, arrays[0])
    return launches.solve(program, weights, arrays[-1])


def _lower_for_cuda(context: Any, *arrays: Any, geometry: Geometry, **settings: Any) -> Any:
    way, y = _by_scan, context.avals_in[-1]
    program = launches.program_of(geometry, y.shape[1], y.dtype)
    fits = program is not None and y.shape[0] <= program.plan.most_images
    if program is not None and fits and not is_exported(context):
        way = functools.partial(_by_launches, program)
    lower = lower_fun(way, multiple_results=False)
    return lower(context, *arrays, geometry=geometry, **settings)


def _vectorise(
    arrays: tuple[Array, ...],
    axes: tuple[int | None, ...],
    *,
    geometry: Geometry,
    weighed: str | None,
) -> tuple[Array, int]:
    """Solve with a batch of matrices; on a CPU the kernel takes one after the other."""

    def one_by_one(*arrays: Array) -> Array:
        pairs = list(zip(arrays, axes, strict=True))
        batch = [jnp.moveaxis(array, axis, 0) for array, axis in pairs if axis is not None]

        def solve(parts: list[Array]) -> Array:
            left = iter(parts)
            each = (array if axis is None else next(left) for array, axis in pairs)
            x: Array = _one_batch.bind(*each, geometry=geometry, weighed=weighed)
            return x

        return lax.map(solve, batch)

    at_once = jax.vmap(functools.partial(_by_scan, geometry=geometry), in_axes=axes)
    return lax.platform_dependent(*arrays, cpu=one_by_one, default=at_once), 0


def _run(*arrays: Array, **settings: Any) -> Array:
    on_cpu = all(device.platform == "cpu" for device in arrays[-1].devices())
    return (_by_kernel if on_cpu else _by_scan)(*arrays, **settings)


_one_batch = Primitive("invconv_kernel_call")
_one_batch.def_impl(_run)
_one_batch.def_abstract_eval(lambda *types, **_: types[-1].update(weak_type=False))
register_lowering(_one_batch, lower_fun(_by_scan, multiple_results=False))
register_lowering(_one_batch, _lower_for_cpu, platform="cpu")
register_lowering(_one_batch, _lower_for_cuda, platform="cuda")
primitive_batchers[_one_batch] = _vectorise
