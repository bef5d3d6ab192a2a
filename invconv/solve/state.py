"""The state of a factored map: factor once, solve often.

    x = K^-1 (y - b)

A state is a plain record. Besides K^-1 it has the bias, the precision in which K is solved, and
whether the result must be NaN if K is singular.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    guard : 0-d array, or None
        log|det| of the factors that are solved, if it was not readable when K was factored: the
        result is NaN where it is -inf.
    dtype : dtype, or None
        The dtype of K^-1, if data of another dtype are cast to it.
    """

    solver: Solver
    log_det: Array
    bias: Array | None = None
    guard: Array | None = None
    dtype: Any = None

    def solve(self, y: Array) -> Array:
        """Return x = K^-1 (y - b), shape (B, C, *spatial)."""
        given = y.dtype
        if self.dtype is not None:
            y = cast(y, self.dtype)
        if self.bias is not None:
            y = y - per_channel(self.bias, y)
        x = self.solver(y)
        if self.guard is not None:
            x = nan_where_singular(x, self.guard)
        return x if self.dtype is None else cast(x, given)

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
