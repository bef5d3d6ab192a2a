"""Solves by a product with a matrix and triangular systems, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from invconv.arrays.namespaces import Array, namespace
from invconv.kernels.primitives import from_pixel_rows, matmul, pixel_rows, triangular_solve


@dataclass(frozen=True, eq=False)
class TriangularSteps:
    """y -> x = T_m^-1 ... T_1^-1 F y at every pixel.

    Attributes
    ----------
    first : array, shape (C, C)
        F, orthogonal or a permutation.
    triangles : tuple of (matrix, lower)
        T_1, ..., T_m.
    method : str
        For the plan.
    """

    first: Array
    triangles: tuple[tuple[Array, bool], ...]
    method: str

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": self.method}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return from_pixel_rows(self._forwards(pixel_rows(y))[-1], y.shape)

    def transposed(self, x_bar: Array) -> Array:
        """Return F^T T_1^-T ... T_m^-T x_bar, shape (B, C, *spatial)."""
        rows = self._backwards(pixel_rows(x_bar))[0]
        return from_pixel_rows(matmul(_transpose(self.first), rows), x_bar.shape)

    def vjp(self, y: Array, x_bar: Array) -> tuple[Array, list[Array]]:
        """Pull x_bar back to the steps, without losing digits that the solve keeps.

        Parameters
        ----------
        y, x_bar : array, shape (B, C, *spatial)

        Returns
        -------
        first_bar : array, shape (C, C)
            The gradient of <x_bar, x> with respect to F.
        triangle_bars : list of array, shape (C, C)
            With respect to T_1, ..., T_m, as if all their entries were free.
        """
        given = pixel_rows(y)
        bars, points = self._backwards(pixel_rows(x_bar)), self._forwards(given)
        # with T x = z: T_bar = -z_bar x^T
        triangle_bars = [
            -matmul(z_bar, _transpose(x)) for z_bar, x in zip(bars[:-1], points[1:], strict=True)
        ]
        return matmul(bars[0], _transpose(given)), triangle_bars

    def _forwards(self, rows: Array) -> list[Array]:
        """Return F y and what each triangle makes of it, (C, pixels)."""
        points = [matmul(self.first, rows)]
        for matrix, lower in self.triangles:
            points.append(triangular_solve(matrix, points[-1], lower=lower))
        return points

    def _backwards(self, rows: Array) -> list[Array]:
        """Return the cotangents of the same, (C, pixels)."""
        bars = [rows]
        for matrix, lower in reversed(self.triangles):
            bars.append(triangular_solve(_transpose(matrix), bars[-1], lower=not lower))
        return bars[::-1]


@dataclass(frozen=True, eq=False)
class Transposed:
    """The solver of the transposed matrix, x = F^T T_1^-T ... T_m^-T y."""

    steps: TriangularSteps

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return self.steps.plan

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return self.steps.transposed(y)


def _transpose(matrix: Array) -> Array:
    return namespace(matrix).matrix_transpose(matrix)
