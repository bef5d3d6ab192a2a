"""The kernel of CUDA devices; XLA launches it without Python, on the stream of the program.

All CUDA devices of JAX in this process must run the same program: if they differ, or one has no
kernel, none is used. Not yet run on a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

import jax
import numpy as np

from invconv.arrays.namespaces import Array
from invconv.kernels.cpu.compiled import available
from invconv.kernels.cuda import xla
from invconv.kernels.cuda.launch import Program
from invconv_jax.native.scan import Geometry


def program_of(geometry: Geometry, channels: int, dtype: Any) -> Program | None:
    """Return the program for the CUDA devices of this process, or None if wavefronts must solve."""
    g, ordinals, dtype = geometry, _ordinals(), np.dtype(dtype)
    if not ordinals or dtype not in (np.float32, np.float64) or not available(dtype.itemsize):
        return None
    stencil = g.shape, g.reach, g.direction, g.dilation, g.lower
    return xla.common_program(channels, *stencil, dtype.itemsize, ordinals)


def _ordinals() -> tuple[int, ...]:
    """Return the numbers of JAX's CUDA devices."""
    try:
        devices = jax.local_devices(backend="cuda")
    except RuntimeError:  # JAX has no such backend here
        return ()
    return tuple(device.local_hardware_id for device in devices)


@functools.partial(jax.jit, static_argnums=0)
def weigh(program: Program, matrices: Array) -> Array:
    """Return the weights of matrices (1 + T, C, C)."""
    call = xla.weigh(program)
    weights = jax.ShapeDtypeStruct((call.results,), matrices.dtype)
    (weighed,) = _run(call, (weights,), matrices)
    return weighed


def solve(program: Program, weights: Array, y: Array) -> Array:
    """Return x, shape (B, C, *shape)."""
    call = xla.solve(program, y.shape[0])
    counters = jax.ShapeDtypeStruct((call.results,), np.int32)
    return _run(call, (jax.ShapeDtypeStruct(y.shape, y.dtype), counters), weights, y)[0]


def _run(call: xla.Call, results: tuple[Any, ...], *arrays: Array) -> Any:
    with LOCK:
        register(call.name, call.code, "CUDA")
    return jax.ffi.ffi_call(call.name, results)(*arrays, launches=call.launches)


@functools.cache
def register(name: str, code: Any, platform: str) -> None:
    """Register a handler with XLA, which may run it until the process ends: its code stays."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(code))
    capsule = jax.ffi.pycapsule(code.address)
    jax.ffi.register_ffi_target(name, capsule, platform=platform)


LOCK = threading.Lock()  # XLA refuses a second handler of a name
