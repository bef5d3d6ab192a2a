"""A path that is factored for one grid: factor once, solve often.

x = K^-1 (y - b)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, Shape, cast, size, to_numpy
from invconv.families.family import Family, Shift
from invconv.families.legs import undoing
from invconv.families.path import Factor, Path
from invconv.families.route import Route, runs, undone_as_one
from invconv.kernels.primitives import Solver, nan_where_singular, per_channel


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


@dataclass(frozen=True, eq=False)
class Unshifted:
    """x = y - b."""

    bias: Array

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "subtraction"}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        return y - per_channel(self.bias, y)


@dataclass(frozen=True, eq=False)
class Forward:
    """The solver of an inverse, which is a forward map: of factors with these weights."""

    families: tuple[Family, ...]
    weights: tuple[Any, ...]

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        return {"method": "forward"}

    def __call__(self, y: Array) -> Array:
        """Return the forward map of y, shape (B, C, *spatial)."""
        path, shape = list(map(Factor, self.families, self.weights)), tuple(y.shape[2:])
        return Route(path, shape, pixels=y.shape[0] * size(shape))(y)


@dataclass(frozen=True, eq=False)
class Solvers:
    """Several solvers, in the order in which they run: the last factor is undone first."""

    solvers: tuple[Solver, ...]

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""
        steps = [s.plan for s in reversed(self.solvers) if not isinstance(s, Unshifted)]
        return {"method": "steps, last first", "steps": steps}

    def __call__(self, y: Array) -> Array:
        """Solve for x, shape (B, C, *spatial)."""
        for solver in self.solvers:
            y = solver(y)
        return y


def factored(path: Path, shape: Shape, log_det: Array, guard: Array | None) -> State:
    """Return the state of a path that solves, such as the inverse of an operator's path.

    Parameters
    ----------
    path : sequence of Factor
    shape : tuple of int
        The grid.
    log_det : 0-d array
        log|det| of the map that the path undoes.
    guard : 0-d array, or None
        As for `State`.
    """
    solvers: list[Any] = [_solver(unit, shape) for unit in units(path)]
    bias = None
    if len(solvers) == 2 and isinstance(solvers[0], Unshifted):
        bias = solvers.pop(0).bias
    solver = solvers[0] if len(solvers) == 1 else Solvers(tuple(solvers))
    return State(solver, log_det, bias, guard)


def units(path: Path) -> list[list[Factor]]:
    """Split a path into units with a solver each: factors that are applied, or a run to undo."""
    split: list[list[Factor]] = []
    for run in runs(path):
        if split and not (run[0].inverted or split[-1][0].inverted):
            split[-1] += run
        else:
            split.append(run)
    return split


def _solver(unit: list[Factor], shape: Shape) -> Solver:
    first = unit[0]
    if not first.inverted:
        return Forward(tuple(f.family for f in unit), tuple(f.w for f in unit))
    if type(first.family) is Shift:
        return Unshifted(first.w)
    return undoing(unit) if undone_as_one(unit) else first.family.factor(first.w, shape)


def solvers_by_factor(state: State, path: Path) -> dict[int, Solver]:
    """Return the solvers of a state on NumPy arrays, by the places of their factors in the path.

    Solvers that undo several factors at once, or of other libraries, are left out.
    """
    inner = state.solver.solvers if isinstance(state.solver, Solvers) else (state.solver,)
    solvers = inner if state.bias is None else (None, *inner)
    known, place = {}, 0
    for unit, solver in zip(units(path), solvers, strict=True):
        if len(unit) == 1 and unit[0].inverted and not undone_as_one(unit):
            known[place] = _on_numpy(solver, state.log_det)
        place += len(unit)
    return {place: solver for place, solver in known.items() if solver is not None}


def _on_numpy(solver: Any, log_det: Array) -> Any:
    if isinstance(log_det, np.ndarray | np.generic):
        return solver
    return getattr(solver, "as_numpy", lambda: None)()
