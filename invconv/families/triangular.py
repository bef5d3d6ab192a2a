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
        return of_matrix(w, inverse, 0.0, triangular=True)


@dataclass(frozen=True)
class LogTriangular(Pointwise):
    """Triangular matrices with a diagonal of +-exp(log_scale), by w = (matrix, log_scale).

    Attributes
    ----------
    triangular : Triangular
        The family of the matrix.
    """

    triangular: Triangular
    hint: ClassVar[str] = "a scale is zero, by its log_scale or sign"

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

    def log_det(
        self, w: tuple[Array, Array], shape: Shape, saving: bool = False
    ) -> tuple[Array, Any]:
        logs = log_of_exp(w[1], pivots(w[0], ()))
        return size(shape) * namespace(logs).sum(logs), None

    def add_log_det_vjp(
        self, known: Any, w: tuple[Array, Array], shape: Shape, memo: Any, bar: Array
    ) -> tuple[Any, Array]:
        matrix, logs = (None, None) if known is None else known
        return matrix, size(shape) * bar + (
            namespace(w[1]).zeros_like(w[1]) if logs is None else logs
        )

    def bounds(self, w: Any) -> Bounds:
        return self.triangular.bounds(w[0])


@dataclass(frozen=True)
class KnownTriangular(LogTriangular):
    """Triangular matrices with a known diagonal, by w = (matrix, diagonal).

    The log-determinant does not read the matrix: Inductor loses the gradient by a diagonal that is
    read from a matrix in some graphs.
    """

    hint: ClassVar[str] = Triangular.hint

    def pivots(self, w: tuple[Array, Array]) -> Array | None:
        return w[1]

    def add_log_det_vjp(
        self, known: Any, w: tuple[Array, Array], shape: Shape, memo: Any, bar: Array
    ) -> tuple[Any, Array]:
        matrix, diagonal = (None, None) if known is None else known
        more = size(shape) * bar / w[1]
        return matrix, more if diagonal is None else diagonal + more
