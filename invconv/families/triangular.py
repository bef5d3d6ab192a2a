"""Families of triangular matrices, whose determinant is the product of their diagonal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, log_of_exp, namespace, size
from invconv.families.family import Family
from invconv.families.pointwise import Pointwise
from invconv.kernels.pixel_steps import PixelStep, Triangle, solved
from invconv.kernels.primitives import add_pivots, pivots
from invconv.trust.bound import Bounds, of_matrix


@dataclass(frozen=True)
class Triangular(Pointwise):
    """Triangular matrices w (C, C); the entries beyond the triangle are zero.

    Attributes
    ----------
    lower : bool
        Whether they are lower triangular.
    """

    lower: bool

    def matrix(self, w: Array) -> tuple[Array, Any]:
        return w, None

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> Array:
        return bar

    def undoing(self, w: Array) -> tuple[PixelStep, ...]:
        return (Triangle(w, self.lower),)

    def transposed(self, w: Array) -> tuple[Family, Array]:
        return replace(self, lower=not self.lower), namespace(w).matrix_transpose(w)

    def pivots(self, w: Array) -> Array | None:
        return pivots(w, ())

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Array:
        known = namespace(w).zeros_like(w) if known is None else known
        return add_pivots(known, (), size(shape) * bar / (pivots(w, ()) if memo is None else memo))

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        inverse = solved(w, np.eye(len(w)), lower=self.lower)
        return of_matrix(w, inverse, triangular=True)


@dataclass(frozen=True)
class WithDiagonal(Pointwise):
    """Triangular matrices, by w = (matrix, what its diagonal is made of).

    The log-determinant has a gradient by the second alone.

    Attributes
    ----------
    triangular : Triangular
        The family of the matrix.
    """

    triangular: Triangular

    def matrix(self, w: tuple[Array, Array]) -> tuple[Array, Any]:
        return w[0], None

    def matrix_vjp(self, w: Any, memo: Any, bar: Array) -> tuple[Any, Any]:
        return bar, None

    def undoing(self, w: tuple[Array, Array]) -> tuple[PixelStep, ...]:
        return self.triangular.undoing(w[0])

    def transposed(self, w: tuple[Array, Array]) -> tuple[Family, Any]:
        turned = Triangular(not self.triangular.lower)
        return replace(self, triangular=turned), (namespace(w[0]).matrix_transpose(w[0]), w[1])

    def transposed_vjp(self, bar: tuple[Any, Any]) -> tuple[Any, Any]:
        matrix = None if bar[0] is None else namespace(bar[0]).matrix_transpose(bar[0])
        return matrix, bar[1]

    def logs_vjp(self, v: Array, bar: Array) -> Array:
        """Return the gradient of bar log|det A| at one pixel by the second array."""
        raise NotImplementedError

    def add_log_det_vjp(
        self, known: Any, w: tuple[Array, Array], shape: Shape, memo: Any, bar: Array
    ) -> tuple[Any, Array]:
        matrix, old = (None, None) if known is None else known
        more = self.logs_vjp(w[1], size(shape) * bar)
        return matrix, more if old is None else old + more

    def bounds(self, w: Any) -> Bounds:
        return self.triangular.bounds(w[0])


@dataclass(frozen=True)
class KnownTriangular(WithDiagonal):
    """Triangular matrices with a known diagonal, by w = (matrix, diagonal).

    In some graphs Inductor loses the gradient by a diagonal that is read from a matrix.
    """

    def pivots(self, w: tuple[Array, Array]) -> Array | None:
        return w[1]

    def logs_vjp(self, v: Array, bar: Array) -> Array:
        return bar / v


@dataclass(frozen=True)
class LogTriangular(WithDiagonal):
    """Triangular matrices with a diagonal of +-exp(log_scale), by w = (matrix, log_scale)."""

    hint: ClassVar[str] = "a scale is zero, by its log_scale or sign"

    def log_det(
        self, w: tuple[Array, Array], shape: Shape, saving: bool = False
    ) -> tuple[Array, Any]:
        logs = log_of_exp(w[1], pivots(w[0], ()))
        return size(shape) * namespace(logs).sum(logs), None

    def logs_vjp(self, v: Array, bar: Array) -> Array:
        return bar + namespace(v).zeros_like(v)
