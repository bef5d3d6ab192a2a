"""Solves with one C x C matrix at every pixel, factor by factor.

    x = A_1^-1 ... A_n^-1 y    for W = A_n ... A_1

A step undoes one factor, for rows of pixels (C, M): a triangle by substitution, an orthogonal
matrix by its transpose, a scale by division.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, diagonal_matrix, namespace, to_numpy
from invconv.kernels.primitives import from_pixel_rows, matmul, pixel_rows, triangular_solve

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class PixelStep:
    """The inverse of a matrix A (C, C)."""

    given: Array  # the array that says A: A itself, unless a class says otherwise

    @property
    def matrix(self) -> Array:
        """A."""
        return self.given

    def on_host(self) -> Self:
        """Return the step in NumPy's float64."""
        return replace(self, given=in_float64(self.given))

    def __call__(self, rows: Array) -> Array:
        """Return A^-1 times rows (C, M)."""
        raise NotImplementedError

    def transposed(self, rows: Array) -> Array:
        """Return A^-T times rows (C, M)."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Triangle(PixelStep):
    """The inverse of a triangular matrix T."""

    lower: bool

    def __call__(self, rows: Array) -> Array:
        return triangular_solve(self.given, rows, lower=self.lower)

    def transposed(self, rows: Array) -> Array:
        return triangular_solve(_transpose(self.given), rows, lower=not self.lower)


class Turned(PixelStep):
    """The inverse of an orthogonal matrix, which is its transpose."""

    def __call__(self, rows: Array) -> Array:
        return matmul(_transpose(self.given), rows)

    def transposed(self, rows: Array) -> Array:
        return matmul(self.given, rows)


class Divided(PixelStep):
    """The inverse of a scale (C,)."""

    @property
    def matrix(self) -> Array:
        return diagonal_matrix(self.given)

    def __call__(self, rows: Array) -> Array:
        return rows / self.given[:, None]

    def transposed(self, rows: Array) -> Array:
        return self(rows)


@dataclass(frozen=True, eq=False)
class PixelSteps:
    """The solve with W, one step after the other."""

    steps: tuple[PixelStep, ...]  # the inverses of A_n, ..., A_1
    method: str = "factors"  # the method that the plan states

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": self.method}

    @property
    def arrays(self) -> list[Array]:
        """The arrays of which the steps were made."""
        return [step.given for step in self.steps]

    def factors(self) -> list[Array]:
        """Return A_1, ..., A_n, in the order in which they are applied."""
        return [step.matrix for step in reversed(self.steps)]

    def on_host(self) -> tuple[Floats, Floats]:
        """Return W and W^-1 in NumPy's float64."""
        matrix = inverse = np.eye(self.steps[0].matrix.shape[0])
        for step in self.steps:
            there = step.on_host()
            matrix, inverse = matrix @ there.matrix, there(inverse)
        return matrix, inverse

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return from_pixel_rows(self.points(pixel_rows(y))[-1], y.shape)

    def points(self, rows: Array) -> list[Array]:
        """Return rows (C, M) of y, and the result of every step."""
        points = [rows]
        for step in self.steps:
            points.append(step(points[-1]))
        return points

    def bars(self, rows: Array) -> list[Array]:
        """Return the cotangents of `points`, given those of the last one."""
        bars = [rows]
        for step in reversed(self.steps):
            bars.append(step.transposed(bars[-1]))
        return bars[::-1]


def in_float64(array: Array) -> Floats:
    """Return an array in NumPy's float64."""
    return to_numpy(array).astype(np.float64)


def solved(triangle: Floats, rhs: Floats, *, lower: bool) -> Floats:
    """Return T^-1 B of NumPy's arrays, by substitution."""
    from scipy.linalg import solve_triangular  # here: it takes as long to import as invconv does

    x: Floats = solve_triangular(triangle, rhs, lower=lower, check_finite=False)
    return x


def _transpose(matrix: Array) -> Array:
    return namespace(matrix).matrix_transpose(matrix)
