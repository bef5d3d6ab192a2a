"""A path that is factored for one grid: factor once, solve often.

x = K^-1 (y - b)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from invconv.arrays.namespaces import Array, Shape, cast, size, to_numpy
from invconv.families.family import Bias, Family, Shift
from invconv.families.path import Factor, Path, inverse
from invconv.families.route import Route, runs, undoing, undone_as_one
from invconv.kernels.primitives import nan_where_singular


@dataclass(frozen=True, eq=False)
class State:
    """An affine map y = K x + b, factored for one grid."""

    solvers: tuple[Any, ...]  # y -> K^-1 (y - b), one after the other: the last factor comes first
    log_det: Array  # 0-d: log|det K|
    # 0-d: log|det| of the factors that are solved, if it was not readable when K was factored: the
    # result is NaN where it is -inf
    guard: Array | None = None
    dtype: Any = None  # the dtype of K^-1, if data of another dtype are cast to it

    def solve(self, y: Array) -> Array:
        """Return x = K^-1 (y - b), shape (B, C, *spatial)."""
        x = y if self.dtype is None else cast(y, self.dtype)
        for solver in self.solvers:
            x = solver(x)
        if self.guard is not None:
            x = nan_where_singular(x, self.guard)
        return x if self.dtype is None else cast(x, y.dtype)

    def as_numpy(self) -> State | None:
        """Return the state on NumPy arrays, or None if K would have to be factored again."""
        solvers = tuple(_on_numpy(solver, self.log_det) for solver in self.solvers)
        return None if None in solvers else State(solvers, to_numpy(self.log_det))

    def for_data_in(self, dtype: Any) -> State:
        """Return a state that casts data of another dtype to its own dtype and solves there."""
        if self.log_det.dtype == dtype:
            return self
        return replace(self, dtype=self.log_det.dtype, log_det=cast(self.log_det, dtype))

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs: the method, and its choices."""
        inside = {} if self.dtype is None else {"precision": "float64"}
        steps = [s.plan for s in reversed(self.solvers) if not isinstance(s, Bias)]
        several = {"method": "steps, last first", "steps": steps}
        return (steps[0] if len(steps) == 1 else several) | inside


@dataclass(frozen=True, eq=False)
class Forward:
    """The solver of an inverse, which is a forward map: of factors with these weights."""

    families: tuple[Family, ...]
    weights: tuple[Any, ...]
    plan: ClassVar[dict[str, Any]] = {"method": "forward"}

    def __call__(self, y: Array) -> Array:
        """Return the forward map of y, shape (B, C, *spatial)."""
        path, shape = list(map(Factor, self.families, self.weights)), tuple(y.shape[2:])
        return Route(path, shape, pixels=y.shape[0] * size(shape))(y)


def solvers_of(path: Path, shape: Shape) -> tuple[Any, ...]:
    """Return the solvers of a path that solves, such as the inverse of an operator's path."""
    return tuple(_solver(unit, shape) for unit in units(path))


def units(path: Path) -> list[list[Factor]]:
    """Split a path into units with a solver each: factors that are applied, or a run to undo."""
    split: list[list[Factor]] = []
    for run in runs(path):
        if split and not (run[0].inverted or split[-1][0].inverted):
            split[-1] += run
        else:
            split.append(run)
    return split


def _solver(unit: list[Factor], shape: Shape) -> Any:
    first = unit[0]
    if not first.inverted:
        return Forward(tuple(f.family for f in unit), tuple(f.w for f in unit))
    if type(first.family) is Shift:
        return Bias(first.w, True)
    return undoing(unit) if undone_as_one(unit) else first.family.factor(first.w, shape)


def solvers_by_factor(state: State | None, path: Path) -> list[Any]:
    """Return the solver, on NumPy arrays, of each factor of a path that a state undoes.

    It is None if the solver undoes several factors at once or is of another library, or no state
    is known.
    """
    if state is None:
        return [None] * len(path)
    known: list[Any] = []
    for unit, solver in zip(units(inverse(path)), state.solvers, strict=True):
        alone = len(unit) == 1 and unit[0].inverted and not undone_as_one(unit)
        known += [_on_numpy(solver, state.log_det)] if alone else [None] * len(unit)
    return known[::-1]


def _on_numpy(solver: Any, log_det: Array) -> Any:
    if isinstance(log_det, np.ndarray | np.generic):
        return solver
    return getattr(solver, "as_numpy", lambda: None)()
