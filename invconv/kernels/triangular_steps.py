"""Solves by a product with a matrix and triangular systems, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, namespace, to_numpy
from invconv.kernels.primitives import from_pixel_rows, matmul, pixel_rows, triangular_solve

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class TriangularSteps:
    """y -> x = T_m^-1 ... T_1^-1 F y at every pixel.

    Attributes
    ----------
    first : array, shape (C, C)
        F, orthogonal or a permutation.
    triangles : tuple of array, shape (C, C)
        T_1, ..., T_m.
    lower : tuple of bool
        True for each T_i that is lower triangular; the others are upper.
    method : str
        The method that the plan states.
    """

    first: Array
    triangles: tuple[Array, ...]
    lower: tuple[bool, ...]
    method: str

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": self.method}

    @property
    def arrays(self) -> list[Array]:
        """The arrays of the factors of W."""
        return [self.first, *self.triangles]

    def on_host(self) -> tuple[Matrix, Matrix]:
        """Return W = F^T T_1 ... T_m and W^-1 in float64."""
        inverse = to_numpy(self.first).astype(np.float64, copy=False)
        product = inverse.T
        for matrix, lower in self.pairs():
            values = to_numpy(matrix).astype(np.float64, copy=False)
            inverse = solved(values, inverse, lower=lower)
            product = product @ values
        return product, inverse

    def factors(self) -> list[Array]:
        """Return the factors of W as matrices, in the order in which they are applied."""
        return [*reversed(self.triangles), _transpose(self.first)]

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return from_pixel_rows(self._forwards(pixel_rows(y))[-1], y.shape)

    def transposed(self, x_bar: Array) -> Array:
        """Return F^T T_1^-T ... T_m^-T x_bar, shape (B, C, *spatial)."""
        rows = self._backwards(pixel_rows(x_bar))[0]
        return from_pixel_rows(matmul(_transpose(self.first), rows), x_bar.shape)

    def vjp(self, y: Array, x_bar: Array) -> tuple[Array, ...]:
        """Pull x_bar back to the steps, without losing digits that the solve keeps.

        Parameters
        ----------
        y, x_bar : array, shape (B, C, *spatial)

        Returns
        -------
        first_bar : array, shape (C, C)
            The gradient of <x_bar, x> with respect to F.
        triangle_bars : arrays, shape (C, C)
            With respect to T_1, ..., T_m, as if all their entries were free.
        """
        given = pixel_rows(y)
        bars, points = self._backwards(pixel_rows(x_bar)), self._forwards(given)
        # with T x = z: T_bar = -z_bar x^T
        triangle_bars = [
            -matmul(z_bar, _transpose(x)) for z_bar, x in zip(bars[:-1], points[1:], strict=True)
        ]
        return matmul(bars[0], _transpose(given)), *triangle_bars

    def pairs(self) -> list[tuple[Array, bool]]:
        """Return T_1, ..., T_m, and whether each is lower triangular."""
        return list(zip(self.triangles, self.lower, strict=True))

    def _forwards(self, rows: Array) -> list[Array]:
        """Return F y, T_1^-1 F y, ..., x, each (C, pixels)."""
        points = [matmul(self.first, rows)]
        for matrix, lower in self.pairs():
            points.append(triangular_solve(matrix, points[-1], lower=lower))
        return points

    def _backwards(self, rows: Array) -> list[Array]:
        """Return the cotangents of the points of `_forwards`, each (C, pixels)."""
        bars = [rows]
        for matrix, lower in reversed(self.pairs()):
            bars.append(triangular_solve(_transpose(matrix), bars[-1], lower=not lower))
        return bars[::-1]


def solved(triangle: Matrix, rhs: Matrix, *, lower: bool) -> Matrix:
    """Return T^-1 B of NumPy's arrays, by substitution."""
    from scipy.linalg import solve_triangular  # here: it takes as long to import as invconv does

    x: Matrix = solve_triangular(triangle, rhs, lower=lower, check_finite=False)
    return x


def _transpose(matrix: Array) -> Array:
    return namespace(matrix).matrix_transpose(matrix)
