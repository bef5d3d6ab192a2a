"""MLX's answers to what the core asks of an array library. Its primitives are agnostic but one."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import mlx.core as mx
import numpy as np

from invconv.arrays.namespaces import ArrayOps, dtype_name
from invconv.kernels.primitives import Plan
from invconv_mlx.namespace import Linalg, Namespace

Array: TypeAlias = Any


class MlxOps(ArrayOps):
    """MLX's answers.

    No array is readable, since MLX does not tell which ones `mlx.core.grad` records: the host would
    compute with their values, and lose derivatives. So a singular operator has a log-determinant of
    -inf and an inverse of NaN, as on an accelerator, and no inverse is judged.
    """

    shared_by_threads = False  # MLX, by 0.32, may crash

    def __init__(self, name: str, xp: Any) -> None:
        super().__init__(name, Namespace())

    def require(self, name: str, x: Array) -> None:
        """Raise TypeError for float64, whose transforms MLX lacks."""
        if x.dtype == mx.float64:
            raise TypeError(
                f"{name}: expected float32, got {dtype_name(x.dtype)}, of which MLX has no complex "
                f"numbers; cast it with {name}.astype(mlx.core.float32)"
            )

    def device(self, x: Array) -> None:
        """Return None: devices share the memory of all arrays."""

    def readable(self, x: Array) -> bool:
        """Say False."""
        return False

    def copy(self, x: Array) -> Array:
        """Return a copy, through which `mlx.core.grad` differentiates."""
        return mx.array(x)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Copy the values of an array to the host, in float32 if it is of a half type."""
        return np.array(x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x)


ARRAY_OPS = MlxOps


@dataclass(frozen=True, eq=False)
class MatrixSolver:
    """The map y -> W^-1 y at every pixel, which factors W anew, and can be differentiated."""

    matrix: Array
    plan: ClassVar[Plan] = Plan("LU factorisation")

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        columns = mx.moveaxis(y, 1, 0)
        x = Linalg.solve(self.matrix, columns.reshape(y.shape[1], -1))
        return mx.moveaxis(x.reshape(columns.shape), 0, 1)


# See `invconv.kernels.matrices.matrix_solver`, which takes a QR factorisation.
matrix_solver = MatrixSolver
