"""The error of an operator's inverse as it runs: the judgement behind every warning.

A bound that costs nothing shows that some inverses are safe (`invconv.trust.bound`). The error of
any other is measured on the host (`invconv.trust.measured`): on y = K x with a known x, and on
random y, for which x is computed in float64 for float32, and in longdouble for float64.

K x is a sum over taps, which would take longer than the solve if there are many taps or pixels.
Then spectral operators are measured by frequencies (`invconv.trust.frequencies`), and the others on
a part of the grid; the error of y = K x, the larger one, is extrapolated from there
(`base.conditions`). If longdouble is no wider than float64, results are rounded on purpose to model
the error.

The computation is a list of steps (`invconv.trust.measured`), one for each part of an operator, or
for the operator itself: its factors of one direction are taken together.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invconv.arrays.array_ops import ops_of
from invconv.arrays.namespaces import Array, Shape, dtype_name, readable, size
from invconv.arrays.registry import agnostic
from invconv.arrays.validation import LONGDOUBLE
from invconv.families import path as paths
from invconv.families.family import arrays_of
from invconv.families.path import (
    Bias,
    Factor,
    Path,
    Route,
    State,
    solvers_by_factor,
    undoing_steps,
    undone_as_one,
    units,
)
from invconv.kernels.primitives import Map, Solver, in_turn
from invconv.operators.base.conditions import affordable, carried_on, samples, tried
from invconv.operators.base.factors import Factored, require_regular
from invconv.trust.bound import error_bound
from invconv.trust.condition import EPS, FAILURES, digits_left
from invconv.trust.frequencies import error_by_frequencies
from invconv.trust.measured import NEAR, Computation, Step

_PIXELS = 64  # enough pixels to judge a map that is the same at every pixel
_HAS_WIDER = bool(np.finfo(np.longdouble).eps < EPS["float64"])  # not on every machine
_HIGHER = {"float32": np.float64, "float64": np.longdouble}


@dataclass(frozen=True)
class Judgement:
    """The error of an inverse, and how it was obtained."""

    error: float  # the largest error of an entry of x over the largest entry; inf if it fails
    leg: str  # "measured" in two precisions, or "modelled" by results rounded on purpose
    rests_on: str  # the samples and the reference, in words

    def digits(self, precision: str) -> float:
        """Return the number of right decimal digits that are left in a precision."""
        return digits_left(self.error / EPS[precision], EPS[precision])


def exceeds(
    conv: Factored, shape: Shape, precision: str, limit: float, state: State | None = None
) -> bool:
    """Tell whether the error of an inverse exceeds a limit, by a bound if that is enough.

    The operator remembers the bound and the judgement. False if its values are not readable.
    ``state`` is the factored operator, if known: the host reuses the parts that it can.
    """
    largest = conv._conditions.get(("bound", shape))
    if largest is None:
        if not all(readable(a) for a in conv._arrays().values()):
            return False
        largest = conv._conditions.find("bound", shape, lambda: bound(conv, shape))
    if largest * EPS[precision] <= limit:
        return False
    return remembered(conv, shape, precision, state).error > limit


def remembered(
    conv: Factored, shape: Shape, precision: str, state: State | None = None
) -> Judgement:
    """Return the judgement, which is made at the first call and remembered."""
    return conv._conditions.find(precision, shape, lambda: judge(conv, shape, precision, state))


def bound(conv: Factored, shape: Shape) -> float:
    """Return a bound of the error in units of eps at O(1) cost, or inf."""

    def sum_up() -> float:
        path = conv._on_host(np.float64)._path()
        bounds = [(family.bounds(w), inverted) for family, w, inverted in path]
        return error_bound(one.inverted() if inverted else one for one, inverted in bounds)

    return tried(sum_up)


def judge(
    conv: Factored, shape: Shape, precision: str, state: State | None = None, times: float = 1
) -> Judgement:
    """Measure the error of the inverse in a precision.

    ``state`` is the factored operator, if known. ``times`` is the number of operators that are
    judged together; each gets as much less work.
    """
    if conv._pixelwise or (state is not None and dtype_name(state.log_det.dtype) != precision):
        state = None
    shape = _few_pixels(conv, shape)
    grid = affordable(conv, shape, precision, higher=conv._spectral, times=times)
    smaller = affordable(conv, grid, precision, higher=True, times=times)
    higher = "float64" if precision == "float32" else "longdouble"
    error, against = 0.0, f"on random samples, against {higher}"
    if smaller != shape:
        solvers = solvers_by_factor(state, conv._on_host(np.dtype(precision))._path())
        error = _by_frequencies(conv, shape, precision, solvers)
        if conv._spectral:
            return Judgement(error, "measured", f"{against} at single frequencies")
    steps = functools.cache(
        lambda at: _computation(conv, at, precision, state=state if at == shape else None)
    )
    given = tried(lambda: steps(grid).error_of_given_x())
    given *= carried_on(conv, grid, shape, precision, state)
    if smaller != shape:
        against += f" on a grid of {' x '.join(map(str, smaller))}, and carried on to this one"
    if precision == "float64" and not _HAS_WIDER:
        against = "by results rounded on purpose, for want of a wider longdouble"
        return Judgement(max(error, given, _modelled(conv, grid)), "modelled", against)
    applied = len(conv._families) == 1 and conv._families[0].solves_by_applying
    if smaller != shape and applied:  # nothing is factored: y = K x is enough
        return Judgement(given, "measured", against)
    random = tried(lambda: steps(smaller).error_of_random_y(NEAR * given))
    return Judgement(max(error, given, random), "measured", against)


def _by_frequencies(
    conv: Factored, shape: Shape, precision: str, solvers: Sequence[Solver | None]
) -> float:
    """Return the largest error of the spectral factors that are undone; parts remember theirs.

    ``solvers`` has the solver of each factor on the whole grid, if it is known.
    """
    if not any(family.spectral for family in conv._families):
        return 0.0
    if conv._of_parts:
        rest, parts = iter(solvers), conv._parts().values()
        return max(
            _by_frequencies(part, shape, precision, list(itertools.islice(rest, len(part._labels))))
            for part in parts
        )
    path = conv._on_host(np.dtype(precision))._path()

    def measure() -> float:
        errors = [0.0]
        for known, factor, after in itertools.zip_longest(solvers, path, path[1:]):
            if factor.family.spectral and not factor.inverted:
                solver = known or factor.family.solver(factor.w, shape)
                bias = after.w if after is not None and after.is_shift else None
                linear: Any = factor.family
                of_factor = factor.w, linear.basis, shape, solver, bias
                by_taps = not getattr(linear, "wide", False)
                errors.append(error_by_frequencies(*of_factor, by_taps=by_taps))
        return max(errors)

    key = f"by frequencies, {precision}"
    return conv._conditions.find(key, shape, lambda: tried(measure))


def blame(conv: Factored, shape: Shape, precision: str) -> Step | None:
    """Return the step that loses most digits, or None if it cannot be determined."""
    if not (steps := len(conv._parts())):
        return None
    try:
        grid = _few_pixels(conv, shape)
        grid = affordable(conv, grid, precision, higher=True, times=16 * steps)
        with np.errstate(all="ignore"):
            return _computation(conv, grid, precision, factored=precision == "float32").to_blame()
    except FAILURES:
        return None


def _computation(
    conv: Factored, shape: Shape, precision: str, factored: bool = False, state: State | None = None
) -> Computation:
    dtypes = np.dtype(precision), np.dtype(_HIGHER[precision])
    working = conv._on_host(dtypes[0])
    higher = working._on_host(dtypes[1])  # of the same, rounded values
    runs = _steps_of(working, shape, state=state)
    if ops_of(conv._reference()[1]).flushes_subnormals:
        runs = [step.flushed() for step in runs]
    token = LONGDOUBLE.set(True)
    try:
        steps = runs, _steps_of(higher, shape, factored)
    finally:
        LONGDOUBLE.reset(token)
    computation = Computation(
        *steps, dtypes, (conv.channels, *shape), conv._pixelwise, samples(conv, shape, precision)
    )
    return computation if factored else computation.refined()


def _few_pixels(conv: Factored, shape: Shape) -> Shape:
    """Return the grid, or a small one if the map is the same at every pixel."""
    small = (min(size(shape), _PIXELS), *(1 for _ in shape[1:]))
    return small if conv._pixelwise and shape else shape


def _modelled(conv: Factored, shape: Shape) -> float:
    """Return the error of float64 if every step's result is rounded once more."""
    kind = np.dtype(np.float64)

    def measure() -> float:
        exact = _steps_of(conv._on_host(kind), shape)
        rounded = [step.rounded(EPS["float64"]) for step in exact]
        both = Computation(rounded, exact, (kind, kind), (conv.channels, *shape))
        return both.error_of_random_y()

    return tried(measure)


def _steps_of(
    conv: Factored, shape: Shape, solved: bool = True, state: State | None = None
) -> list[Step]:
    """Return the steps of an operator of NumPy arrays; unless ``solved``, without solves."""
    path = conv._path()
    if solved:  # raises if a factor is exactly singular
        require_regular(conv, shape, back=True)
        require_regular(conv, shape)
    rows = zip(conv._labels, path, solvers_by_factor(state, path), strict=True)
    steps = []
    for (label, inverted), group in itertools.groupby(rows, lambda row: (row[0], row[1].inverted)):
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
    if undone_as_one(unit):
        return undoing_steps(unit)
    return known.get(id(first.w)) or first.family.solver(first.w, shape)
