"""MLX's answers to the core (`ArrayOps`), and a native `matrix_solver`; the rest is agnostic.

The core asks for a namespace of the array API standard. MLX has no ``device`` of an array, no
``hypot``, no ``linalg.diagonal``, and factors real matrices only, so that a complex A + iB is
factored as the real [[A, -B], [B, A]].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np

from invconv.arrays.namespaces import Array, ArrayOps, dtype_name
from invconv.kernels.primitives import Plan


@mx.custom_function  # type: ignore[untyped-decorator]
def _solve(a: Array, b: Array) -> Array:
    regular = mx.all(_pivots(a) != 0, axis=-1)[..., None, None]  # else MLX may raise, at any time
    a = mx.where(regular, a, mx.eye(a.shape[-1]))
    return mx.where(regular, mx.linalg.solve(a, b, stream=mx.cpu), mx.nan)


@_solve.vjp  # type: ignore[untyped-decorator]
def _solve_vjp(primals: tuple[Array, Array], x_bar: Array, x: Array) -> tuple[Array, Array]:
    """Return A_bar = -B_bar X^T and B_bar = A^-T X_bar: MLX cannot differentiate its own pivots."""
    b_bar = _solve(primals[0].swapaxes(-1, -2), x_bar)
    return -b_bar @ x.swapaxes(-1, -2), b_bar


@mx.custom_function  # type: ignore[untyped-decorator]
def _log_abs_det(a: Array) -> Array:
    return mx.log(mx.abs(_pivots(a))).sum(axis=-1)


@_log_abs_det.vjp  # type: ignore[untyped-decorator]
def _log_abs_det_vjp(a: Array, bar: Array, logs: Array) -> Array:
    return bar[..., None, None] * Linalg.inv(a).swapaxes(-1, -2)


class Linalg:
    """The extension ``linalg``, on the CPU, the one device for which MLX has it."""

    @staticmethod
    def diagonal(a: Array) -> Array:
        return mx.diagonal(a, axis1=-2, axis2=-1)

    @staticmethod
    def inv(a: Array) -> Array:
        return Linalg.solve(a, mx.broadcast_to(mx.eye(a.shape[-1], dtype=a.dtype), a.shape))

    @staticmethod
    def pinv(a: Array, *, rtol: float) -> Array:
        """Return the pseudo-inverses of real matrices (..., N, M), N >= M, by singular values."""
        u, s, vt = mx.linalg.svd(a, stream=mx.cpu)
        kept = s > rtol * s.max(axis=-1, keepdims=True)
        inverse = mx.where(kept, 1 / mx.where(kept, s, 1), 0)
        columns = u[..., : s.shape[-1]].swapaxes(-1, -2)
        return vt.swapaxes(-1, -2) @ (inverse[..., None] * columns)

    @staticmethod
    def qr(a: Array) -> Any:
        return mx.linalg.qr(a, stream=mx.cpu)

    @staticmethod
    def slogdet(a: Array) -> tuple[None, Array]:
        """Return (None, log|det A|), from pivots: their product, MLX's own way, may underflow."""
        return None, _log_abs_det(_real(a)) / 2 if _is_complex(a) else _log_abs_det(a)

    @staticmethod
    def solve(a: Array, b: Array) -> Array:
        """Return A^-1 B for matrices (..., C, C) and (..., C, M)."""
        if not _is_complex(a):
            return _solve(a, b)
        parts = mx.concatenate([mx.real(b), mx.imag(b)], axis=-2)
        real, imag = mx.split(_solve(_real(a), parts), 2, axis=-2)
        return real + 1j * imag


class Namespace:
    """MLX's functions, those that it lacks, and some that accept ``device``, which MLX's do not."""

    complex128 = None  # the dtype of transforms of float64, which the adapter does not take
    linalg = Linalg

    def __init__(self) -> None:
        for name in ("arange", "asarray", "empty", "eye", "full_like", "zeros", "zeros_like"):
            setattr(self, name, _without_device(getattr(mx, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(mx, name)

    def sum(self, a: Array, **options: Any) -> Array:
        """Return a sum; of an empty array with strides MLX 0.32 would return random numbers."""
        return mx.sum(a if a.size else mx.zeros(a.shape, dtype=a.dtype), **options)

    def hypot(self, a: Array, b: Array) -> Array:
        """Return sqrt(a^2 + b^2), which overflows only where it is out of range."""
        return mx.abs(a + 1j * b)


def _without_device(create: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *args, device=None, **kwargs: create(*args, **kwargs)


def _pivots(a: Array) -> Array:
    return Linalg.diagonal(mx.linalg.lu_factor(a, stream=mx.cpu)[0])


def _is_complex(a: Array) -> bool:
    return bool(a.dtype == mx.complex64)


def _real(a: Array) -> Array:
    """Return [[A, -B], [B, A]] of A + iB."""
    real, imag = mx.real(a), mx.imag(a)
    rows = [mx.concatenate(r, axis=-1) for r in ([real, -imag], [imag, real])]
    return mx.concatenate(rows, axis=-2)


class MlxOps(ArrayOps):
    """MLX's answers.

    No array is readable, since MLX does not tell which ones `mlx.core.grad` records: the host would
    compute with their values, and lose derivatives. So a singular operator has a log-determinant of
    -inf and an inverse of NaN, as on an accelerator, and no inverse is judged.
    """

    shared_by_threads = False  # MLX (up to 0.32) may crash

    def __init__(self, name: str, xp: Any) -> None:
        super().__init__(name, Namespace())

    def require(self, name: str, x: Array) -> None:
        if x.dtype == mx.float64:
            raise TypeError(
                f"{name}: expected float32, got {dtype_name(x.dtype)}, of which MLX has no complex "
                f"numbers; cast it with {name}.astype(mlx.core.float32)"
            )

    def device(self, x: Array) -> None:
        """Return None: devices share the memory of all arrays."""

    def readable(self, x: Array) -> bool:
        return False

    def copy(self, x: Array) -> Array:
        """Return a copy, through which `mlx.core.grad` differentiates."""
        return mx.array(x)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x)


ARRAY_OPS = MlxOps


@dataclass(frozen=True, eq=False)
class MatrixSolver:
    """The map y -> W^-1 y at every pixel, differentiable; every call factors W anew."""

    matrix: Array
    plan: ClassVar[Plan] = Plan("LU factorisation")

    def __call__(self, y: Array) -> Array:
        columns = mx.moveaxis(y, 1, 0)
        x = Linalg.solve(self.matrix, columns.reshape(y.shape[1], -1))
        return mx.moveaxis(x.reshape(columns.shape), 0, 1)


# See `invconv.kernels.matrices.matrix_solver`, which takes a QR factorisation.
matrix_solver = MatrixSolver
