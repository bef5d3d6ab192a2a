"""CuPy: how the library runs the primitives of the core, and its solves.

`invconv.arrays.registry` finds this module by its entry point; nothing imports it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
from cupy._core import get_compute_type, set_compute_type
from cupy._core._routines_linalg import COMPUTE_TYPE_DEFAULT
from cupy.lib.stride_tricks import as_strided

from invconv.arrays.namespaces import Array, ArrayOps, Shape
from invconv.arrays.stencil import CausalStencil
from invconv.kernels.cuda.launch import DeviceOps, DeviceSolve, device_solve
from invconv.kernels.pitched import PitchedSolver, StridedOps
from invconv.kernels.primitives import Plan
from invconv.kernels.wavefront import inverse_at_the_pixel

# CuPy has one setting for all threads: the first to enter changes it, and the last restores it.
_counting = threading.RLock()
_inside = 0
_outside: Any = COMPUTE_TYPE_DEFAULT


@contextmanager
def full_precision(_: Array = None) -> Iterator[None]:
    """Multiply float32 matrices in full precision here, even if CUPY_TF32=1 asks for TF32."""
    global _inside, _outside
    with _counting:
        if not _inside:
            _outside = get_compute_type("float32")
            set_compute_type("float32", COMPUTE_TYPE_DEFAULT)
        _inside += 1
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
            if not _inside:
                set_compute_type("float32", _outside)


class CupyOps(ArrayOps):
    """CuPy's answers to what the core asks of an array library."""

    def require_usable(self, name: str, x: Array) -> None:
        current = cupy.cuda.Device().id
        if x.device.id != current:
            raise ValueError(
                f"{name}: expected an array on CuPy's current device, {current}, got one on device "
                f"{x.device.id}; make that current: with cupy.cuda.Device({x.device.id}): ..."
            )

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(x.get())


ARRAY_OPS = CupyOps


def matmul(a: Array, b: Array) -> Array:
    """See `invconv.kernels.primitives.matmul`."""
    with full_precision(a):
        return cupy.matmul(a, b)


def triangular_solve(matrix: Array, rhs: Array, *, lower: bool) -> Array:
    """See `invconv.kernels.primitives.triangular_solve`."""
    # here, since it loads cuBLAS, which is missing without a GPU
    from cupyx.scipy.linalg import solve_triangular

    return solve_triangular(matrix, rhs, lower=lower)


def _strided_view(x: Array, shape: Shape, strides: Shape, start: int) -> Array:
    flat = x.reshape(-1)[start:]  # a view, since x is contiguous
    return as_strided(flat, shape, tuple(s * x.itemsize for s in strides))


CUPY = StridedOps(_strided_view, lambda a, b, out: cupy.matmul(a, b, out=out), full_precision)


def _ordinal(x: Array) -> int | None:
    """Return the number of the device, or None on AMD's, where the kernel does not run."""
    return None if cupy.cuda.runtime.is_hip else int(x.device.id)


CUDA = DeviceOps(
    _ordinal,
    lambda x: int(x.data.ptr),
    lambda x: int(cupy.cuda.get_current_stream(x.device.id).ptr),
    cupy.ascontiguousarray,
)


@dataclass(frozen=True, eq=False)
class CausalSolver:
    """The map y -> x, both (B, C, *shape), that solves ``causal.stencil()`` x = y."""

    causal: CausalStencil
    shape: Shape
    state: DeviceSolve | PitchedSolver  # the kernel if it runs, else wavefronts

    @property
    def plan(self) -> Plan:
        return self.state.plan

    def __call__(self, y: Array) -> Array:
        return self.state(y)

    def __reduce__(self) -> Any:
        """Pickle without the state: code and weights belong to one device."""
        return causal_solver, (self.causal, self.shape)


def causal_solver(stencil: CausalStencil, shape: Shape) -> CausalSolver:
    """See `invconv.kernels.wavefront.causal_solver`."""
    c = stencil
    state = device_solve(c.taps, c.sweep.on(shape), CUDA)
    return CausalSolver(c, shape, state or PitchedSolver(c, inverse_at_the_pixel(c), shape, CUPY))
