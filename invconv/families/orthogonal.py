"""Families of orthogonal matrices: W^-1 = W^T, and log|det W| = 0."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, identity, namespace
from invconv.families.family import Family
from invconv.families.pointwise import Pointwise
from invconv.kernels.matrices import Product
from invconv.kernels.pixel_steps import PixelStep, Turned
from invconv.kernels.reflections import Reflections
from invconv.trust.bound import Bounds, of_matrix
from invconv.trust.condition import Condition
from invconv.trust.norms import SolveOverflowError


@dataclass(frozen=True)
class Orthogonal(Pointwise):
    """Orthogonal matrices."""

    needs_y: ClassVar[bool] = False

    def undoing(self, w: Array) -> tuple[PixelStep, ...]:
        return (Turned(self.matrix(w)[0]),)

    def factor(self, w: Array, shape: Shape) -> Product:
        return Product(namespace(w).matrix_transpose(self.matrix(w)[0]), "transpose")

    def log_det(self, w: Array, shape: Shape, saving: bool = False) -> tuple[Array, Any]:
        """Return 0, or NaN if a weight is not finite: then W is no orthogonal matrix."""
        return namespace(w).sum(0.0 * w), None

    def add_log_det_vjp(self, known: Any, w: Array, shape: Shape, memo: Any, bar: Array) -> Any:
        return known

    def condition(self, w: np.ndarray[Any, Any], shape: Shape) -> Condition:
        if not np.isfinite(w).all():
            raise SolveOverflowError
        return Condition(1.0, "2-norm")

    def bounds(self, w: np.ndarray[Any, Any]) -> Bounds:
        matrix = self.matrix(w)[0]
        bounds = of_matrix(matrix, matrix.T)
        return replace(bounds, terms=len(matrix) + len(w) + 2)


@dataclass(frozen=True)
class Householder(Orthogonal):
    """H_1 H_2 ... H_m, H_i = I - 2 v_i v_i^T / (v_i^T v_i), v_1 ... v_m the rows of w (m, C)."""

    def matrix(self, w: Array) -> tuple[Array, Any]:
        return self.times(w, identity(w.shape[1], w))

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> Array:
        return self.times_vjp(w, memo, bar)[0]

    def times(self, w: Array, before: Array) -> tuple[Array, Any]:
        reflections = Reflections.of(w)
        product, memo = reflections.times(before)
        return product, (reflections, memo)

    def times_vjp(self, w: Array, memo: Any, bar: Array) -> tuple[Array, Array]:
        reflections: Reflections = memo[0]
        return reflections.vjp(memo[1], bar)

    def transposed(self, w: Array) -> tuple[Family, Array]:
        return self, namespace(w).flip(w, axis=0)


@dataclass(frozen=True)
class Permutation(Orthogonal):
    """Permutation matrices w (C, C); they get no gradient."""

    hint: ClassVar[str] = "permutation has an index twice"

    def matrix(self, w: Array) -> tuple[Array, Any]:
        return w, None

    def matrix_vjp(self, w: Array, memo: Any, bar: Array) -> None:
        """See `Pointwise`."""

    def log_det(self, w: Array, shape: Shape, saving: bool = False) -> tuple[Array, Any]:
        """Return 0, or -inf if a column has not one entry: an edit in place may have made it so."""
        xp = namespace(w)
        total = xp.sum(w, axis=0)
        regular = xp.all(total == 1)
        return xp.where(regular, xp.sum(0.0 * total), xp.full_like(total[0], -math.inf)), None

    def transposed(self, w: Array) -> tuple[Family, Array]:
        return self, namespace(w).matrix_transpose(w)
