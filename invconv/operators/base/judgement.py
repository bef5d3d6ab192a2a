"""Whether an operator's inverse can be right: the judgement behind every warning.

A bound that costs nothing shows that some inverses are safe (`invconv.trust.bound`). The error of
any other is measured by round trips of images on the host (`invconv.trust.round_trip`), with the
solver of the call that is judged. K x with other numbers than the solver's has them in float64, if
float32 is judged; if float64 is, its weights are moved by an ulp, or K x is rounded once more.

The step to blame is the one with the largest error of its own, in the same round trips.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from invconv.arrays.errors import IllConditionedWarning, SingularConvError
from invconv.arrays.namespaces import (
    Array,
    Shape,
    bits,
    callers_level,
    dtype_name,
    grid_text,
    ops_of,
    readable,
    size,
    to_numpy,
)
from invconv.arrays.registry import agnostic
from invconv.families import path as paths
from invconv.families.path import Factor, Path, Route, State, solvers_of
from invconv.families.pointwise import Matrix, Scale
from invconv.kernels.primitives import Map, in_turn
from invconv.operators.base.costs import Work, images_of_growth, of_estimate, quicker_by_blas
from invconv.operators.base.factors import Operator, require_regular
from invconv.trust import costs
from invconv.trust.bound import error_bound
from invconv.trust.condition import (
    EPS,
    FAILURES,
    OVERFLOW,
    Condition,
    SolveOverflowError,
    digits_left,
    norms,
    of_inverse,
    of_norms,
)
from invconv.trust.limits import NEAR, TOLERATED
from invconv.trust.round_trip import Floats, Judgement, RoundTrip


class Blame(NamedTuple):
    """The step of an operator with the largest error of its own."""

    name: str  # its prefix in `parameters`: "first", "0", "1.second"
    kind: str  # the name of its class
    error: float

    @property
    def bad(self) -> bool:
        """Whether the step is bad by itself: fewer than three digits are left."""
        return self.error > NEAR * TOLERATED


def bound(conv: Operator, shape: Shape) -> float:
    """Return a bound of the error in units of eps at O(1) cost, or inf."""

    def sum_up() -> float:
        path = conv._on_host(np.float64)._path()
        bounds = [(family.bounds(w), inverted) for family, w, inverted in path]
        return error_bound(one.inverted() if inverted else one for one, inverted in bounds)

    return tried(sum_up)


def judge(
    conv: Operator,
    shape: Shape,
    precision: str,
    state: State | None = None,
    *,
    limit: float | None = None,
    times: float = 0.5,
) -> Judgement:
    """Measure the error of the inverse in a precision.

    ``state`` is the factored operator, if it is known; else matrices are undone factor by factor,
    as where a library records. With a limit no more images are taken than tell on which side of it
    the error is. ``times`` is the number of operators that share the work of a call.
    """
    if state is not None and dtype_name(state.log_det.dtype) != precision:
        state = None
    return Judgement(tried(lambda: _Judged.of(conv, precision).error(shape, limit, times, state)))


def _judge_squares(conv: Any, shape: Shape, precision: str) -> Judgement:
    """Measure the error of least squares without damp, of what a singular K does not lose."""
    judged = _Judged.of(conv, precision)
    path, other = paths.linear(judged.path), paths.linear(judged.other)
    host, apply = conv._on_host(np.dtype(precision)), _forward(path, shape, by_taps=False)

    def solve(y: Floats) -> Any:
        return host._least_squares(y, 0.0)

    run = judged._replace(path=path, other=other).error
    both = solve, in_turn([apply, solve])
    return Judgement(tried(lambda: run(shape, TOLERATED, 1.0, squares=both)))


def blame(conv: Operator, shape: Shape, precision: str) -> Blame | None:
    """Return the step with the largest error of its own, or None if the operator has no steps.

    It is the innermost one that is bad. A step may be right by itself and amplify errors of others,
    as channels of different scales do: if none is bad, the one counts that loses most if its y is
    only as right as its largest entry.
    """
    names = [name for name, _ in conv._labels]
    if not any(names):
        return None
    judged = _Judged.of(conv, precision)
    alone = _worst(conv, judged, names, shape, len(names))
    if alone.bad:
        return alone
    return _worst(conv, judged._replace(noisy=True), names, shape, len(names))


def _worst(
    conv: Operator, judged: _Judged, names: Sequence[str], shape: Shape, times: float
) -> Blame:
    """Return the step to blame of those that factors belong to, by their names in ``conv``."""
    steps = []
    heads = [name.partition(".") for name in names]
    for head, group in itertools.groupby(range(len(heads)), lambda i: heads[i][0]):
        places = list(group)
        step = judged.part(places)
        steps.append((tried(partial(step.error, shape, TOLERATED, times)), head, places))
    error, head, places = max(steps)
    part, inner = conv._parts().get(head), [heads[i][2] for i in places]
    if part is not None and any(inner):
        found = _worst(part, judged.part(places), inner, shape, times)
        if found.bad:
            return found._replace(name=f"{head}.{found.name}")
    return Blame(head, "bias" if part is None else type(part).__name__, error)


class _Judged(NamedTuple):
    """A path on the host, in the precision that is judged."""

    path: Path
    other: Path  # the same with other numbers
    channels: int
    precision: str
    flushes: bool  # whether subnormal numbers are zero where the path runs
    noisy: bool = False  # whether y has errors of the size of its largest entry's rounding

    @classmethod
    def of(cls, conv: Operator, precision: str) -> Self:
        """Copy an operator's path to the host."""
        host = conv._on_host(np.dtype(precision))
        path, single = host._path(), precision == "float32"
        other = host._on_host(np.float64)._path() if single else list(map(_moved, path))
        flushes = ops_of(conv._reference()[1]).flushes_subnormals
        return cls(path, other, conv.channels, precision, flushes)

    def part(self, places: Sequence[int]) -> Self:
        """Return some factors alone."""
        path, other = ([factors[i] for i in places] for factors in self[:2])
        return self._replace(path=path, other=other)

    def error(
        self,
        shape: Shape,
        limit: float | None,
        times: float,
        state: State | None = None,
        squares: tuple[Map, Map | None] | None = None,
    ) -> float:
        """Return the error of the inverse, by as many round trips as are affordable.

        ``squares`` are the solve of least squares, and what of x it can give back.
        """
        if shape and all(factor.family.pixelwise for factor in self.path):  # few pixels tell all
            shape = (min(size(shape), costs.PIXELS), *(1 for _ in shape[1:]))
        back, reachable = paths.inverse(self.path), None
        if squares is not None:
            solve, reachable = squares
        elif state is None:
            solve = in_turn(solvers_of(back, shape, by_factor=True))
        else:
            solve = state.on_host(back, shape).solve
        linear = paths.linear(self.path)
        work = Work.of(linear, self.channels, shape)
        other = self._with_other_numbers(_forward(self.other, shape, work.by_taps, quickest=True))
        own = _forward(self.path, shape, by_taps=True) if work.by_taps else other
        if self.flushes:
            own, other, solve = map(_flushed, (own, other, solve))
        if self.noisy:
            own, other = map(_noisy, (own, other))
        sample, dtype = (self.channels, *shape), np.dtype(self.precision)
        spectral, matrices = bool(work.transforms), sum(f.family.pixelwise for f in linear) > 1
        trip = RoundTrip(own, other, solve, sample, dtype, spectral, matrices, reachable)
        return trip.error(work.images(times), limit)

    def _with_other_numbers(self, run: Map) -> Map:
        """Return a map of arrays in the precision, given that with the other numbers."""
        if self.precision == "float32":
            return lambda x: run(x.astype(np.float64)).astype(np.float32)
        rng = np.random.default_rng()
        return lambda x: run(x) * (1 + EPS["float64"] * rng.uniform(-0.5, 0.5, x.shape))


def _moved(factor: Factor) -> Factor:
    """Return a factor that is alike at every pixel, or at every frequency, with other roundings.

    Its weights are moved by a unit of their last place. The taps of any other are not: errors by
    the same weights at every pixel would add up from pixel to pixel, as roundings do not.
    """
    family, w, inverted = factor
    if factor.is_shift or not (family.pixelwise or family.spectral):
        return factor
    if isinstance(family, Scale):  # not its logarithm, which may be large
        family, w = Scale(), family.scale(w)

    def moved(a: Floats) -> Any:
        signs = np.random.default_rng().choice([-EPS["float64"], EPS["float64"]], a.shape)
        return a * (1 + signs) if a.dtype.kind == "f" else a

    return Factor(family, tuple(map(moved, w)) if isinstance(w, tuple) else moved(w), inverted)


def _forward(path: Path, shape: Shape, by_taps: bool, quickest: bool = False) -> Map:
    """Return x -> K x + b; if ``quickest``, small sums over taps run by BLAS, not compiled."""

    def way(factor: Factor) -> tuple[bool, bool]:
        ready = factor.family.solves_by_applying or (factor.family.spectral and not by_taps)
        return factor.inverted and not factor.is_shift, ready

    maps: list[Map] = []
    for (inverted, ready), group in itertools.groupby(path, way):
        factors = list(group)
        if inverted:
            maps += solvers_of(factors, shape)
        elif ready:
            maps += [f.family.made_ready(f.w, shape) for f in factors]
        else:
            route = Route(factors, shape, pixels=size(shape))
            maps.append(_by_blas(route) if quickest and quicker_by_blas(factors, shape) else route)
    return in_turn(maps)


def _by_blas(run: Map) -> Map:
    def agnostically(x: Array) -> Array:
        with agnostic():
            return run(x)

    return agnostically


def _flushed(run: Map) -> Map:
    """Return a map as it runs in a library that flushes subnormal numbers to zero."""

    def flush(a: Floats) -> Any:
        return np.where(np.abs(a) < np.finfo(a.dtype).smallest_normal, a.dtype.type(0), a)

    return lambda a: flush(run(flush(a)))


def _noisy(run: Map) -> Map:
    """Return a map whose results are only as right as the largest entry of each image."""

    def noisy(x: Floats) -> Any:
        y = run(x)
        largest = np.abs(y).max(axis=tuple(range(1, y.ndim)), keepdims=True)
        noise = np.random.default_rng().uniform(-0.5, 0.5, y.shape).astype(y.dtype)
        return y + np.finfo(y.dtype).eps * largest * noise

    return noisy


def tried(measure: Callable[[], float]) -> float:
    """Return the result of a function, or inf if it raises one of `FAILURES`."""
    try:
        with np.errstate(all="ignore"):
            return measure()
    except FAILURES:
        return math.inf


# --- words -----------------------------------------------------------------------------------


def warn_of_loss(
    conv: Operator, shape: Shape, result: Array, state: State | None = None, squares: bool = False
) -> None:
    """Warn if an inverse with this result is wrong; the arguments are as of `loss`."""
    if readable(result) and (message := loss(conv, shape, _precision_of(result), state, squares)):
        warnings.warn(message, IllConditionedWarning, stacklevel=callers_level())


def require_invertible(name: str, conv: Operator, shape: Shape) -> None:
    """Raise ValueError if an inverse in the operator's precision cannot be right."""
    if message := loss(conv, shape, solved_in(conv)):
        raise ValueError(f"{name}: expected an inverse that can be trusted, but {message}")


def solved_in(conv: Operator) -> str:
    """Return the precision in which an operator is solved, "float32" or "float64"."""
    return _precision_of(conv._reference()[1])


def _precision_of(like: Array) -> str:
    return "float64" if bits(like.dtype, like) == 64 else "float32"


def off_by(name: str, shape: Shape, precision: str, judged: Judgement, lost: Blame | None) -> str:
    """Return the error of an inverse and the step to blame, in words."""
    text = (
        f"the inverse of {name} on a grid of {grid_text(shape)} is off by {judged.error:.1e} of "
        "its largest entry, measured on round trips of random images: "
        f"{judged.digits(precision):.1f} digits are left in {precision}"
    )
    if lost is None:
        return text
    if lost.bad:
        return f"{text}, most of them lost by {lost.name} ({lost.kind})"
    return f"{text}, though no step is bad by itself: they undo each other, or all lose a little"


def loss(
    conv: Operator, shape: Shape, precision: str, state: State | None = None, squares: bool = False
) -> str:
    """Return the lost digits of an inverse, their cause and a remedy; "" if two digits are left.

    A bound tells, if that is enough, or else round trips. The operator remembers both. "" if its
    values are not readable. ``state`` is the factored operator that is judged, if it is known;
    ``squares`` if the solution of least squares is judged.
    """
    largest = conv._conditions.get(("bound", shape))
    if largest is None:
        if not all(readable(a) for a in conv._arrays().values()):
            return ""
        largest = conv._conditions.find("bound", shape, lambda: bound(conv, shape))
    if largest * EPS[precision] <= TOLERATED:
        return ""
    solvers = () if state is None else state.solvers
    way = " ".join([precision, "squares" * squares, *(type(one).__name__ for one in solvers)])
    call = partial(judge, conv, shape, precision, state, limit=TOLERATED, times=1.0)
    if squares:
        call = partial(_judge_squares, conv, shape, precision)
    judged = conv._conditions.find(way, shape, call)
    if judged.error <= TOLERATED:
        return ""
    kind = f"{type(conv).__name__} by least squares" if squares else type(conv).__name__
    if trouble := broken(conv):
        where = f"the inverse of {kind} on a grid of {grid_text(shape)}"
        return f"{where} has condition number inf: {trouble}"
    grid = shape if conv._spectral or conv._pixelwise else estimable(conv, shape)
    number = condition_number(conv, grid) * carried_on(conv, grid, shape, precision)
    carried = grid != shape and math.isfinite(number)
    worst = min(judged.digits(precision), digits_left(number, EPS[precision]))
    advice = "bring the parameters closer to their initialisation"
    if hasattr(conv, "least_squares"):
        advice = f"use least_squares(y, damp), or {advice}"
    if precision == "float32" and number * EPS["float64"] <= TOLERATED:
        advice += ", or use float64"
    with np.errstate(all="ignore"):
        path = conv._in_working_precision()._path()
        log_det = paths.log_det(path, shape)[0] if state is None else state.log_det
        fine = np.isfinite(to_numpy(log_det))
    though = ", though K x - y and the log-determinant look fine" if fine else ""
    return (
        f"{off_by(kind, shape, precision, judged, blame(conv, shape, precision))}, {worst:.1f} at "
        f"worst (it has condition number {'about ' * carried}{number:.3g}){though}; {advice} "
        f"(invconv.diagnose says where it comes from; prepare(..., check=False) does not look)"
    )


def broken(conv: Operator) -> str:
    """Return which parameters hold NaN or inf, in words, or ""."""
    names = [n for n, a in conv.parameters().items() if not np.isfinite(to_numpy(a)).all()]
    return f"{', '.join(names)} holds NaN or inf" if names else ""


# --- condition numbers -----------------------------------------------------------------------


def condition(conv: Operator, shape: Shape, norm: float | None = None) -> Condition:
    """Return the condition of any operator, from its values in host memory.

    Unless a norm is given, 1 or inf, it is the 2-norm if the families know it, else the 1-norm.
    """
    try:
        with np.errstate(all="ignore"):
            host = conv.asarrays(np.empty(0))
            require_regular(host, shape)
            require_regular(host, shape, back=True)
            found = _condition(paths.linear(host._path()), host.channels, shape, norm)
        if math.isfinite(found.condition):
            return found
        raise SolveOverflowError
    except SingularConvError as error:
        trouble = str(error)
    except (SolveOverflowError, np.linalg.LinAlgError):
        trouble = broken(conv) or OVERFLOW
    return Condition(math.inf, "any norm", trouble=trouble)


def condition_number(conv: Operator, shape: Shape, norm: float | None = None) -> float:
    """Return the condition number, which is computed at the first call and remembered."""
    kind = f"condition, {norm}"
    return conv._conditions.find(kind, shape, lambda: condition(conv, shape, norm).condition)


def _condition(path: Path, channels: int, shape: Shape, norm: float | None) -> Condition:
    if norm is None and len(path) == 1:
        known = path[0].family.condition(path[0].w, shape)
        if known is not None:
            return known
    if norm is None and all(factor.family.pixelwise for factor in path):
        unit = np.eye(channels)[None]  # (1, C, N) with N = C pixels: one unit vector a pixel
        apply, solve = linear_maps(path, unit.shape[2:])
        given = not isinstance(path[0].family, Matrix) or len(path) > 1
        return of_inverse(apply(unit)[0], solve(unit)[0], given)
    maps = _maps(path, channels, shape, norm or 1)
    return of_norms(*norms(*maps), maps[2], norm or 1)


def matrices(path: Path, channels: int) -> list[tuple[Any, Any]]:
    """Return A and A^-1 of each factor, one matrix a pixel, and those of the path up to it."""
    unit = np.eye(channels)[None]
    product, found = (unit[0], unit[0]), []
    for factor in path:
        own = tuple(run(unit)[0] for run in linear_maps([factor], unit.shape[2:]))
        product = own[0] @ product[0], product[1] @ own[1]
        found.append((own, product))
    return found


def norms_of_path(path: Path, channels: int, shape: Shape, norm: float) -> tuple[float, float]:
    """Return or estimate |K| and |K^-1| of float64 factors; (inf, inf) if a norm overflows."""
    try:
        with np.errstate(all="ignore"):
            gain, back = norms(*_maps(path, channels, shape, norm))
    except FAILURES:
        return math.inf, math.inf
    return gain.value, back.value


def _maps(path: Path, channels: int, shape: Shape, norm: float) -> Any:
    """Return the arguments of `invconv.trust.condition.norms`: for K, or for K^T if norm is inf."""
    if all(factor.family.pixelwise for factor in path):
        shape = tuple(1 for _ in shape)
    turned = paths.transposed(path)
    here, there = (path, turned) if norm == 1 else (turned, path)
    products = sum(factor.family.products(factor.w, shape) for factor in path)
    first = _longest_columns(here, shape)
    later = partial(linear_maps, there, shape)
    return linear_maps(here, shape), later, (channels, *shape), first, products


def _longest_columns(path: Path, shape: Shape) -> tuple[int | None, ...]:
    """Return a pixel index per axis: every column of K is a shift of the column at that pixel."""
    if len(path) == 1:
        return path[0].family.longest_columns(shape)
    return tuple(0 if all(f.family.pixelwise for f in path) else None for _ in shape)


def linear_maps(path: Path, shape: Shape) -> tuple[Map, Map]:
    """Return x -> K x and y -> K^-1 y of factors without biases, each prepared for a grid."""
    pairs = []
    for family, w, inverted in path:
        pair = family.made_ready(w, shape), family.solver(w, shape)
        pairs.append(pair[::-1] if inverted else pair)
    return in_turn([apply for apply, _ in pairs]), in_turn([solve for _, solve in pairs[::-1]])


def estimable(conv: Operator, shape: Shape, times: float = 1) -> Shape:
    """Return the grid, halved until compiled kernels estimate ``times`` norms quickly.

    The frequencies of a part of a closed grid are to be among its own, so that none is conditioned
    worse: it is divided by a divisor.
    """
    path = paths.linear(conv._on_host(np.float64)._path())
    if conv._pixelwise:
        return shape
    alike = None not in _longest_columns(path, shape)
    a_pixel = times * of_estimate(path, conv.channels, shape, alike)
    least = max(1.0, costs.PIXELS / conv.channels)
    while size(shape) > least and a_pixel * size(shape) > costs.ESTIMATE:
        axis = int(np.argmax(shape))
        n = shape[axis]
        divisors = (d for d in range(2, math.isqrt(n) + 1) if n % d == 0)
        part = n // next(divisors, n) if conv._closed else (n + 1) // 2
        shape = (*shape[:axis], part, *shape[axis + 1 :])
    return shape


def carried_on(conv: Operator, grid: Shape, shape: Shape, precision: str) -> float:
    """Return the growth of K^-1 noise, as of its norm, from a grid to a larger one, ``shape``."""
    if grid == shape:
        return 1.0
    here, there = (_gain(conv, at, precision) for at in (grid, shape))
    return max(1.0, there / here) if math.isfinite(there) and here else math.inf


def _gain(conv: Operator, shape: Shape, precision: str) -> float:
    """Return the largest entry of K^-1 noise, the mean of some images; it is remembered."""

    def measure() -> float:
        dtype: Any = np.dtype(precision)
        host = conv._on_host(dtype)
        count = images_of_growth(paths.linear(host._path()), conv.channels, shape)
        # all of one sign, as in images, so that errors can add up from pixel to pixel
        noise = np.random.default_rng().random((count, conv.channels, *shape), dtype)
        solved = np.abs(host._factor(shape).solve(noise)).reshape(count, -1)
        return float(solved.max(axis=1).mean(dtype=np.float64))

    known = conv._conditions.find(f"gain, {precision}", shape, lambda: tried(measure))
    wider = not math.isfinite(known) and precision == "float32"
    return _gain(conv, shape, "float64") if wider else known
