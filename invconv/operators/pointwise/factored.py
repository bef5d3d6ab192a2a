"""1x1 convolutions that are given by factors, in which they are solved."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from invconv.arrays.namespaces import Array, Shape, readable
from invconv.kernels.triangular_steps import TriangularSteps
from invconv.operators.base.linear import guarded, nan_where_singular
from invconv.operators.base.prepared import Map
from invconv.operators.base.protocol import Gradients
from invconv.operators.pointwise.conv1x1 import Pointwise


@dataclass(frozen=True, eq=False, repr=False)
class Factored(Pointwise):
    """A matrix W that is never inverted as such: its factors have digits that it has lost."""

    _given_factors = True

    @abstractmethod
    def _solver(self, shape: Shape) -> TriangularSteps: ...

    @abstractmethod
    def _steps_vjp(self, first_bar: Array, triangle_bars: list[Array]) -> Gradients:
        """Return the gradients with respect to the parameters from those of the steps."""

    def _transposed_maps(self, shape: Shape) -> tuple[Map, Map]:
        solve = guarded(self._solver(shape).transposed, self._log_det(shape))
        return self.transpose()._apply, solve

    def _solve_vjp(self, y: Array, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        shape = tuple(x.shape[2:])
        solver, log_det = self._solver(shape), self._log_det(shape)
        if not readable(log_det):
            x_bar = nan_where_singular(x_bar, log_det)
        return self._steps_vjp(*solver.vjp(y, x_bar)), solver.transposed(x_bar)
