"""The primitive `causal_solver`: causal solves on a grid.

The derivative is JAX's rule for a linear solve (`lax.custom_linear_solve`), which keeps only the
solution. XLA calls the kernels of the core without Python, on a CPU and on CUDA. Elsewhere, under
`vmap` over matrices on CUDA, and in a program that JAX exports (our kernels exist in this process
only), a loop over wavefronts solves, which XLA compiles once, whatever the image size. All CUDA
devices of JAX in this process must run the same program: if they differ, or one has no kernel, no
kernel is used. Not yet run on a GPU.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.custom_batching import sequential_vmap

from invconv.arrays.namespaces import Array, Shape, readable
from invconv.arrays.stencil import CausalStencil, Sweep
from invconv.kernels.cpu import machine
from invconv.kernels.cpu import xla as cpu
from invconv.kernels.cpu.compiled import compiled_solve
from invconv.kernels.cuda import launch
from invconv.kernels.cuda.launch import DeviceProgram
from invconv.kernels.primitives import Plan, flat
from invconv.kernels.wavefront import inverse_keeps_accuracy, lanes_of
from invconv_jax.native.partition import SplitByBatch
from invconv_jax.native.products import correlate, matmul, substitute, triangular_solve
from invconv_jax.private import primitive_batchers, primitive_of, register


def causal_solver(stencil: CausalStencil, shape: Shape) -> "CausalSolver":
    """See `invconv.kernels.wavefront.causal_solver`."""
    causal = stencil.within(shape)
    if not readable(causal.taps) or machine.reason(causal.taps.dtype.itemsize):
        return CausalSolver(causal, [])
    weights = compiled_solve(np.array(causal.taps), causal.sweep).layouts()
    return CausalSolver(causal, list(map(jnp.asarray, weights)))


jax.tree_util.register_dataclass(CausalStencil, ["taps"], ["sweep"])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class CausalSolver:
    """The map y -> x, both (B, C, *shape), that solves ``causal.stencil()`` x = y."""

    causal: CausalStencil
    weights: list[Array]  # in the layouts of the compiled kernel, if their values are known

    @property
    def plan(self) -> Plan:
        sweep, taps = self.causal.sweep, self.causal.taps
        corner = "cached inverse where accurate, else triangular solve"
        if machine.reason(taps.dtype.itemsize):
            return Plan("wavefront", corner, levels=sweep.levels)
        if isinstance(taps, jax.core.Tracer | jax.ShapeDtypeStruct):
            kinds = "compiled kernel on a CPU, kernel or wavefront on CUDA, wavefront elsewhere"
            return Plan(kinds, corner)
        if readable(taps):
            return Plan("compiled kernel", corner)
        on_cuda = program_of(sweep, taps.shape[1], taps.dtype) is not None
        return Plan("CUDA kernel" if on_cuda else "wavefront", corner)

    @jax.jit  # type: ignore[untyped-decorator]
    def __call__(self, y: Array) -> Array:
        sweep, matrices = self.causal.sweep, self.causal.taps
        return lax.custom_linear_solve(
            lambda x: correlate(self.causal.stencil(), x),
            lax.convert_element_type(y, y.dtype),  # x gets this type, not a weak one
            lambda _, b: solve(sweep, matrices, b, self.weights),
            lambda _, b: solve(sweep.transpose(), matrices.mT, b),
        )


def program_of(sweep: Sweep, channels: int, dtype: Any) -> DeviceProgram | None:
    """Return the program for the CUDA devices of this process, or None if wavefronts must solve."""
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64) or machine.reason(dtype.itemsize):
        return None
    programs = [launch.program_of(channels, sweep, dtype.itemsize, n) for n in _ordinals()]
    plans = {program and program.plan for program in programs}
    return programs[0] if len(plans) == 1 else None


def _ordinals() -> tuple[int, ...]:
    try:
        devices = jax.local_devices(backend="cuda")
    except RuntimeError:  # JAX has no such backend here
        return ()
    return tuple(device.local_hardware_id for device in devices)


def solve(sweep: Sweep, matrices: Array, y: Array, weights: Sequence[Array] = ()) -> Array:
    """Return x, shape (B, C, *shape), for D and the taps (1 + T, C, C), without a derivative.

    Without ``weights``, which `causal_solver` computes once, a call on a CPU computes its own.
    """
    exported_for_any_batch = not isinstance(y.shape[0], int)
    if exported_for_any_batch or machine.reason(matrices.dtype.itemsize):
        return _by_scan(matrices, y, sweep=sweep)
    return _split(len(sweep.shape))(matrices, *weights, y, sweep=sweep)


@functools.cache
def _split(ndim: int) -> SplitByBatch:
    return SplitByBatch("invconv_kernel", _solve, tuple(range(-1 - ndim, 0)))


def _solve(*arrays: Array, sweep: Sweep) -> Array:
    """Solve images with any number of batch axes, all on one device."""
    *given, y = arrays
    if not y.size:
        return y
    images = y.reshape(-1, *y.shape[-1 - len(sweep.shape) :])
    x: Array = _one_batch.bind(*given, images, sweep=sweep)
    return x.reshape(y.shape)


def _by_scan(matrices: Array, *others: Array, sweep: Sweep) -> Array:
    diagonal, taps, y = matrices[0], matrices[1:], others[-1]
    unit = jnp.eye(diagonal.shape[0], dtype=diagonal.dtype)
    inverse = triangular_solve(diagonal, unit, lower=sweep.lower)

    def multiply(y: Array) -> Array:
        product = matmul(inverse, flat(y)).reshape(y.shape)
        return _loop(sweep, None, matmul(inverse, taps), product)

    def divide(y: Array) -> Array:
        return _loop(sweep, diagonal, taps, y)

    return lax.cond(inverse_keeps_accuracy(diagonal, inverse), multiply, divide, y)


def _loop(sweep: Sweep, diagonal: Array | None, taps: Array, y: Array) -> Array:
    """Solve level after level; D is the identity if ``diagonal`` is None."""
    (count, channels, _), batch, lower = taps.shape, y.shape[0], sweep.lower
    if not count and diagonal is None:
        return y
    if not count:
        return jnp.moveaxis(substitute(diagonal, jnp.moveaxis(y, 1, 0), lower=lower), 0, 1)
    lanes = lanes_of(sweep, np)
    width = lanes.gather.shape[1]
    rows = jnp.pad(jnp.transpose(flat(y), (2, 1, 0)), ((0, 1), (0, 0), (0, 0)))
    rows = jnp.transpose(rows[lanes.gather], (0, 2, 1, 3))  # (L, C, M, B)
    weights = jnp.moveaxis(taps, 0, 1).reshape(channels, count * channels)
    window = jnp.zeros((channels, lanes.back * width, batch), y.dtype)

    def step(window: Array, level: tuple[Array, Array]) -> tuple[Array, Array]:
        rhs, inside = level
        seen = jnp.pad(window, ((0, 0), (0, 1), (0, 0)))
        read = jnp.concatenate([seen[:, reads] for reads in lanes.reads])
        x = rhs - jnp.tensordot(weights, read, 1, precision=lax.Precision.HIGHEST)
        if diagonal is not None:
            x = substitute(diagonal, x, lower=lower)
        x = jnp.where(inside[:, None], x, jnp.zeros_like(x))
        return jnp.concatenate([window[:, width:], x], axis=1), x

    levels = lax.scan(step, window, (rows, lanes.inside))[1]
    x = jnp.transpose(levels, (0, 2, 1, 3)).reshape(-1, channels, batch)[lanes.places]
    return jnp.transpose(x, (2, 1, 0)).reshape(y.shape)


def _by_kernel(matrices: Array, *others: Array, sweep: Sweep) -> Array:
    *weights, y = others
    call = cpu.call(y.shape[1], sweep, y.dtype.itemsize, y.shape[0])
    register(call.name, call.code, "cpu")
    memory = jax.ShapeDtypeStruct((call.memory,), np.uint8)
    run = jax.ffi.ffi_call(call.name, (jax.ShapeDtypeStruct(y.shape, y.dtype), memory))
    given = weights[call.plan.way == "channels"] if weights else matrices
    return run(given, y, program=call.plan.numbers, room=call.room)[0]


def _by_launches(matrices: Array, *others: Array, sweep: Sweep) -> Array:
    y = others[-1]
    program = program_of(sweep, y.shape[1], y.dtype)
    if program is None or y.shape[0] > program.plan.most_images:
        return _by_scan(matrices, y, sweep=sweep)
    weights = jax.ShapeDtypeStruct((program.plan.weights,), y.dtype)
    weighing = launch.custom_call(program, "weigh", program.plan.weigh())
    (weighed,) = _call(weighing, (weights,), matrices)
    call = launch.custom_call(program, "solve", (program.plan.solve(y.shape[0]),))
    counters = jax.ShapeDtypeStruct((call.counters,), np.int32)
    return _call(call, (jax.ShapeDtypeStruct(y.shape, y.dtype), counters), weighed, y)[0]


def _call(call: launch.DeviceCall, results: tuple[Any, ...], *arrays: Array) -> Any:
    register(call.name, call.code, "CUDA")
    return jax.ffi.ffi_call(call.name, results)(*arrays, launches=call.launches)


def _vectorise(
    arrays: tuple[Array, ...], axes: tuple[int | None, ...], *, sweep: Sweep
) -> tuple[Array, int]:
    """Solve with a batch of matrices; on a CPU the kernel takes one element after the other."""
    (matrices, *_, y), places = arrays, (axes[0], axes[-1])  # weights are computed anew
    one_by_one = sequential_vmap(functools.partial(_one_batch.bind, sweep=sweep))
    by_kernel = jax.vmap(one_by_one, in_axes=places)
    at_once = jax.vmap(functools.partial(_by_scan, sweep=sweep), in_axes=places)
    return lax.platform_dependent(matrices, y, cpu=by_kernel, default=at_once), 0


_one_batch = primitive_of("invconv_kernel_call", _by_scan, cpu=_by_kernel, cuda=_by_launches)
primitive_batchers[_one_batch] = _vectorise
