"""The computation of an operator as it runs, step by step, on NumPy arrays.

A step is what one class computes: a part of an operator, or the operator itself. Its factors of one
direction are taken together. The steps are what `invconv.trust.measured` compares.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.registry import agnostic
from invconv.families import path as paths
from invconv.families.factored import State, solvers_by_factor, units
from invconv.families.family import Bias, arrays_of
from invconv.families.path import Factor, Path
from invconv.families.pointwise import Pointwise
from invconv.families.route import Route, undone_as_one
from invconv.kernels.matrices import PixelSteps
from invconv.kernels.primitives import Map, in_turn
from invconv.operators.base.factors import Factored, require_regular
from invconv.trust.measured import Step


def computation_of(
    conv: Factored, shape: Shape, solved: bool = True, state: State | None = None
) -> list[Step]:
    """Return the steps of an operator of NumPy arrays; unless ``solved``, without solves.

    ``state`` is the operator factored for the grid, in any library, if it is known.
    """
    path = conv._path()
    if solved:  # raises if a factor is exactly singular
        require_regular(conv, shape, back=True)
        require_regular(conv, shape)
    rows = zip(conv._labels, path, solvers_by_factor(state, path), strict=True)
    steps = []
    for (label, inverted), group in groupby(rows, lambda row: (row[0], row[1].inverted)):
        _, factors, solvers = zip(*group, strict=True)
        base = paths.inverse(factors) if inverted else factors
        pairs = zip(factors, solvers, strict=True)
        known = {id(factor.w): solver for factor, solver in pairs}  # each has arrays of its own
        steps.append(replace(_step(label, base, shape, solved, known), turned=inverted))
    return steps


def _step(
    label: tuple[str, str], path: Path, shape: Shape, solved: bool, known: dict[int, Any]
) -> Step:
    """Return the step of factors that are applied forwards."""
    if all(factor.is_shift for factor in path):
        add, subtract = (Bias(path[0].w, inverted) for inverted in (False, True))
        return Step(label[0], "bias", add, subtract, lambda y: y)
    solves: tuple[Map, Map] = _not_factored, _not_factored
    if solved:
        solvers = [_solver(unit, shape, known) for unit in units(paths.inverse(path))]
        linear = [solver for solver in solvers if not isinstance(solver, Bias)]
        solves = in_turn(solvers), in_turn(linear)
    return Step(*label, _forward(path, shape), *solves)


def _not_factored(y: Array) -> Array:
    raise NotImplementedError


def _forward(path: Path, shape: Shape) -> Map:
    """Return the forward map by BLAS: to compile a kernel would take longer than to judge."""
    longdouble = any(a.dtype.itemsize > 8 for f in path for a in arrays_of(f.w))
    with agnostic(False):
        route = Route(path, shape)
    first = path[0].family
    if first.solves_by_applying and not longdouble:
        ready, rest = first.made_ready(path[0].w, shape), Route(path[1:], shape)
        return lambda x: rest(ready(x))
    if all(factor.family.pixelwise for factor in path) and not longdouble:
        return route

    def apply(x: Array) -> Array:
        with agnostic(not longdouble):  # BLAS has no longdouble
            return route(x)

    return apply


def _solver(unit: list[Factor], shape: Shape, known: dict[int, Any]) -> Any:
    """Return the solver of a unit; of several matrices the one that undoes them one by one."""
    first = unit[0]
    if first.is_shift:
        return Bias(first.w, True)
    if isinstance(first.family, Pointwise) and undone_as_one(unit):
        steps = (step for f in unit for step in f.family.undoing(f.w))  # type: ignore[attr-defined]
        return PixelSteps(tuple(steps))
    return known.get(id(first.w)) or first.family.factor(first.w, shape)
