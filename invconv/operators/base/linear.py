"""Operators that are one matrix of their own: all of the base's pieces from a few.

A class supplies ``_apply``, ``_solver``, ``_log_det``, ``_log_det_vjp``, ``_parameter_vjp``,
``transpose``, ``_condition`` and ``_condition_bound``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Array, Shape, namespace, readable, to_float
from invconv.arrays.registry import Primitive
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.base.prepared import Factor, Map
from invconv.operators.base.protocol import Gradients


@dataclass(frozen=True, eq=False)
class Guarded:
    """A solve whose result is NaN where the operator is singular, which nobody could look at."""

    solve: Map
    log_det: Array

    def __call__(self, y: Array) -> Array:
        """Solve for x."""
        return nan_where_singular(self.solve(y), self.log_det)


def guarded(solve: Map, log_det: Array) -> Map:
    """Return a solve that is `Guarded` where nobody could look."""
    return solve if readable(log_det) else Guarded(solve, log_det)


@Primitive
def nan_where_singular(x: Array, log_det: Array) -> Array:
    """Return x, or NaN where the log-determinant is -inf."""
    xp = namespace(log_det)
    # a choice keeps every bit of x: XLA would flush the smallest numbers of a sum to zero
    return xp.where(log_det == -math.inf, xp.full_like(log_det, math.nan), x)


@dataclass(frozen=True, eq=False, repr=False)
class Linear(InvertibleConv):
    """y = K(parameters) x + b."""

    @abstractmethod
    def transpose(self) -> Linear:
        """Return the operator of the transposed matrix, without bias."""

    @abstractmethod
    def _solver(self, shape: Shape) -> Any:
        """Return a callable y -> K^-1 y with a ``plan``."""

    @abstractmethod
    def _parameter_vjp(self, x: Array, y_bar: Array) -> Gradients:
        """Return the gradients of <y_bar, K x> with respect to the parameters of K."""

    def _factor_apply(self, shape: Shape) -> Factor:
        log_det = self._log_det(shape)
        self._require_regular(log_det, shape)
        solver = self._solver(shape)
        return Factor(guarded(solver, log_det), log_det, solver)

    def _require_regular(self, log_det: Array, shape: Shape) -> None:
        if readable(log_det) and to_float(log_det) == -math.inf:
            grid = " x ".join(map(str, shape))
            raise SingularConvError(
                f"{type(self).__name__} is exactly singular on a {grid} grid (log_det is -inf), "
                f"so it has no inverse: {self._singular_hint}"
            )

    @property
    @abstractmethod
    def _singular_hint(self) -> str:
        """What to look at when the operator is singular."""

    def _apply_vjp(self, x: Array, y_bar: Array) -> tuple[Gradients, Array]:
        return self._parameter_vjp(x, y_bar), self.transpose()._apply(y_bar)

    def _solve_vjp(self, y: Array, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        # x = K^-1 y, so dx = K^-1 (dy - dK x): y_bar = K^-T x_bar and K_bar = -y_bar x^T.
        y_bar = self._transposed_maps(tuple(x.shape[2:]))[1](x_bar)
        return {name: -g for name, g in self._parameter_vjp(x, y_bar).items()}, y_bar

    def _linear_maps(self, shape: Shape) -> tuple[Map, Map]:
        return self._apply, self._factor_apply(shape).solve
