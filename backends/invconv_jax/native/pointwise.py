"""The primitive `matrix_solver`: x[p] = W^-1 y[p] by QR, with the derivatives of a linear solve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array
from invconv.kernels.primitives import from_pixel_rows, pixel_rows
from invconv_jax.native.solves import matmul, substitute


def matrix_solver(matrix: Array) -> MatrixSolver:
    """See `invconv.kernels.matrices.matrix_solver`."""
    # a constant: the rule of the linear solve has the derivative
    q, r = jnp.linalg.qr(lax.stop_gradient(matrix))
    return MatrixSolver(matrix, q, r)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class MatrixSolver:
    """x = R^-1 Q^T y at every pixel, with W = Q R; the arrays are (C, C)."""

    matrix: Array
    q: Array
    r: Array

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "QR factorisation"}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return _solve(self.matrix, self.q, self.r, y)


@jax.jit  # type: ignore[untyped-decorator]
def _solve(matrix: Array, q: Array, r: Array, y: Array) -> Array:
    rows = lax.custom_linear_solve(
        lambda x: matmul(matrix, x),
        pixel_rows(y),
        lambda _, b: substitute(r, matmul(q.mT, b), lower=False),
        lambda _, b: matmul(q, substitute(r.mT, b, lower=True)),
    )
    return from_pixel_rows(rows, y.shape)
