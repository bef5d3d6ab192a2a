"""The state of a factored map: factor once, solve often.

    x = K^-1 (y - b)

A state is a plain record. Besides K^-1 it has the bias, the precision in which K is solved, and
whether the result must be NaN if K is singular.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, cast, namespace, to_numpy
from invconv.arrays.registry import Primitive
from invconv.kernels.primitives import per_channel
from invconv.kernels.solver import Solver

Map = Callable[[Array], Array]


@Primitive
def nan_where_singular(x: Array, log_det: Array) -> Array:
    """Return x, or NaN if the log-determinant is -inf."""
    xp = namespace(log_det)
    # `where` keeps every bit of x; a sum would not: XLA flushes the smallest numbers to zero
    return xp.where(log_det == -math.inf, xp.full_like(log_det, math.nan), x)


@dataclass(frozen=True, eq=False)
class State:
    """An affine map y = K x + b, factored for one grid.

    Attributes
    ----------
    solver : Solver
        y -> K^-1 y, for y (B, C, *spatial).
    log_det : 0-d array
        log|det K|.
    bias : array, shape (C,), or None
        b.
    guarded : bool
        True if log_det was not readable when K was factored: then the result is NaN if K is
        singular.
    dtype : dtype, or None
        The dtype of K^-1, if data of another dtype are cast to it.
    """

    solver: Solver
    log_det: Array
    bias: Array | None = None
    guarded: bool = False
    dtype: Any = None

    def solve(self, y: Array) -> Array:
        """Return x = K^-1 (y - b), shape (B, C, *spatial)."""
        given = y.dtype
        if self.dtype is not None:
            y = cast(y, self.dtype)
        if self.bias is not None:
            y = y - per_channel(self.bias, y)
        x = self.solver(y)
        if self.guarded:
            x = nan_where_singular(x, self.log_det)
        return x if self.dtype is None else cast(x, given)

    def linear(self) -> State:
        """Return the state of K alone."""
        return self if self.bias is None else replace(self, bias=None)

    def as_numpy(self) -> State | None:
        """Return the state on NumPy arrays, or None if K would have to be factored again."""
        if isinstance(self.log_det, np.ndarray | np.generic):
            return self
        solver = getattr(self.solver, "as_numpy", lambda: None)()
        if solver is None:
            return None
        bias = None if self.bias is None else to_numpy(self.bias)
        return State(solver, to_numpy(self.log_det), bias)

    def for_data_in(self, dtype: Any) -> State:
        """Return a state that casts data of another dtype to its own dtype and solves there."""
        if self.log_det.dtype == dtype:
            return self
        return replace(self, dtype=self.log_det.dtype, log_det=cast(self.log_det, dtype))

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs: the method, and its choices."""
        inside = {} if self.dtype is None else {"precision": "float64"}
        return self.solver.plan | inside


@dataclass(frozen=True, eq=False)
class Steps:
    """The solver of several maps in a row; it undoes the last map first."""

    states: tuple[State, ...]

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "steps, last first", "steps": [state.plan for state in self.states]}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        for state in reversed(self.states):
            y = state.solve(y)
        return y


@dataclass(frozen=True, eq=False)
class Forward:
    """The solver of an inverse, which is the forward map of an operator."""

    conv: Any  # an InvertibleConv: its module imports this one

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "forward"}

    def __call__(self, y: Array) -> Array:
        """Return K y + b, shape (B, C, *spatial)."""
        return self.conv._forward(y)


def one_after_another(states: Sequence[State], bias: Array | None = None) -> State:
    """Return the state of several steps, the first one first, with a bias at the end."""
    log_det = sum((state.log_det for state in states[1:]), start=states[0].log_det)
    return State(Steps(tuple(states)), log_det, bias)
