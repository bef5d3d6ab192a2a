"""1x1 convolutions with factors of W as parameters; the inverse solves factor by factor."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from invconv.arrays.namespaces import Array, Shape, readable
from invconv.kernels.matrices import FactoredSteps, Transposed, solver_of_steps
from invconv.kernels.solver import Solver
from invconv.kernels.triangular_steps import TriangularSteps, solved
from invconv.operators.base.protocol import Gradients
from invconv.operators.pointwise.conv1x1 import Conv1x1, Pointwise
from invconv.solve.state import State, nan_where_singular
from invconv.trust.bound import Bounds, largest_entry, of_matrix, row_sum


class Factored(Pointwise, abstract=True):
    """A matrix W given by factors; W is never inverted: it lacks digits that its factors have."""

    _given_factors = True
    _needs_y = True

    @abstractmethod
    def _steps(self) -> FactoredSteps:
        """Return W^-1 as one solve after the other."""

    @abstractmethod
    def _steps_vjp(self, *bars: Array) -> Gradients:
        """Return the gradients by the parameters, given the gradients by the steps' factors."""

    def _solver(self, shape: Shape) -> Solver:
        return solver_of_steps(self._steps())

    def _factor_by_substitution(self, shape: Shape, state: State | None = None) -> State:
        log_det = self._log_det(shape)
        known = self._require_regular(shape, log_det)
        return State(self._steps(), log_det, getattr(self, "bias", None), guarded=not known)

    def _factors(self) -> tuple[Conv1x1, ...]:
        """Return the factors of W as 1x1 convolutions, in the order in which they are applied."""
        return tuple(Conv1x1(matrix, ndim=self.ndim) for matrix in self._steps().factors())

    def _transposed_solver(self, shape: Shape) -> Solver:
        return Transposed(self._steps())

    def _solve_vjp(self, y: Array | None, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        assert y is not None
        steps = self._steps()
        if not readable(x):  # for a readable x the solve has raised already if W is singular
            x_bar = nan_where_singular(x_bar, self._log_det(tuple(x.shape[2:])))
        return self._steps_vjp(*steps.vjp(y, x_bar)), steps.transposed(x_bar)


class TriangularlyFactored(Factored, abstract=True):
    """A matrix W: an orthogonal matrix or a permutation, times triangular matrices."""

    @abstractmethod
    def _steps(self) -> TriangularSteps:
        """Return W^-1 as a product and triangular solves."""

    def _bounds(self, shape: Shape) -> list[Bounds]:
        steps, identity = self._steps(), np.eye(self.channels)
        of_triangles = [
            of_matrix(t, solved(t, identity, lower=lower), 0.0, triangular=True)
            for t, lower in reversed(steps.pairs())
        ]
        back, bias = row_sum(steps.first), largest_entry(getattr(self, "bias", None))
        return [*of_triangles, Bounds(row_sum(steps.first.T), back, self.channels + 2, bias)]
