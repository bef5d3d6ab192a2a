"""How far the inverse of an operator is off, as it runs: the judgement behind every warning.

A bound says at no cost where an inverse is safe (`invconv.trust.bound`). Elsewhere the error is
measured on the host (`invconv.trust.measured`): on y = K x, whose x is known, and on random y,
whose x is found in float64 for float32, and in longdouble for float64. Rounding is linear in eps,
so that float64 loses 2^-29 of what float32 does where that keeps a digit. Sums in longdouble are
slow: they are done on a crop of the grid, from where the error grows as that of results that are
rounded on purpose. Where longdouble is no wider than float64, that error has to do.

Called by `base.checks` and `base.precision` (and `stability`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from invconv.arrays.namespaces import Shape, dtype_name, library_name, readable, size
from invconv.operators.base import conditions
from invconv.operators.base.protocol import Protocol
from invconv.solve.state import State
from invconv.trust.bound import error_bound
from invconv.trust.condition import EPS, FAILURES
from invconv.trust.measured import Computation, Step

# The cost of K x of an image, in additions of arrays of numbers: a product is one of these and
# as much as a C-th of another one; a number of the image is drawn, solved for and compared
_WORK = 2.0**19
_BLAS, _LONGDOUBLE, _NUMBER = 1 / 8, 4.0, 8.0
_LEAST = 2**7  # numbers of an image
_NEAR = 0.3  # of the errors of y = K x, from which on those of random y count
ESTIMATE = 16.0  # times the cost of K x is that of estimating a norm, by compiled kernels
_PIXELS = 64  # that are enough of a map that is the same at every pixel
_HAS_WIDER = bool(np.finfo(np.longdouble).eps < EPS["float64"])  # not on every machine
_HIGHER = {"float32": np.float64, "float64": np.longdouble}
_AGAINST = {
    "float32": "on random samples, against float64",
    "float64": "on random samples, against longdouble",
}


@dataclass(frozen=True)
class Judgement:
    """How far an inverse is off.

    Attributes
    ----------
    error : float
        The largest error of an entry of x over the largest entry; inf where nothing is right.
    leg : {"measured", "modelled"}
        Whether samples were solved in two precisions, or results rounded on purpose had to do.
    rests_on : str
        What was compared with what.
    """

    error: float
    leg: str
    rests_on: str

    def digits(self, precision: str) -> float:
        """Return the decimal digits that are left of those of a precision."""
        error = max(self.error, EPS[precision])
        return max(0.0, -math.log10(error)) if math.isfinite(error) else 0.0


def exceeds(
    conv: Protocol, shape: Shape, precision: str, limit: float, state: State | None = None
) -> bool:
    """Tell whether an inverse is off by more than a limit, by a bound where that is enough.

    The operator remembers what was found. False where its values cannot be looked at. ``state`` is
    the factored operator, where that is known: what it can lend to the host is not factored again.
    """
    found = conv._conditions.get("bound", shape)
    if found is None:
        if not all(readable(a) for a in conv._arrays().values()):
            return False
        found = conv._conditions.find("bound", shape, lambda: bound(conv, shape))
    if found * EPS[precision] <= limit:
        return False
    return remembered(conv, shape, precision, state).error > limit


def remembered(
    conv: Protocol, shape: Shape, precision: str, state: State | None = None
) -> Judgement:
    """Return the judgement that the operator remembers, made the first time."""
    found: Judgement = conv._conditions.find(
        precision, shape, lambda: judge(conv, shape, precision, state)
    )
    return found


def bound(conv: Protocol, shape: Shape) -> float:
    """Return a bound of the error in units of eps at O(1) cost, or inf."""
    try:
        with np.errstate(all="ignore"):
            return error_bound(conv._on_host(np.float64)._bounds(shape))
    except FAILURES:
        return math.inf


def judge(
    conv: Protocol, shape: Shape, precision: str, state: State | None = None, times: float = 1
) -> Judgement:
    """Measure how far the inverse is off in a precision.

    Parameters
    ----------
    state : State, optional
        The factored operator, where that is known: it is not factored again.
    times : float
        How many operators are judged together: each for as much less work.
    """
    if state is not None and dtype_name(state.log_det.dtype) != precision:
        state = None
    if conv._pixelwise:
        shape, state = _few_pixels(shape), None
    grid = affordable(conv, shape, precision, higher=conv._spectral, times=times)
    smaller = affordable(conv, grid, precision, higher=True, times=times)
    error, against = 0.0, _AGAINST[precision]
    if smaller != shape:
        error = _by_frequencies(conv, shape, precision, state)
        if conv._spectral:
            return Judgement(error, "measured", f"{against} at single frequencies")
    steps = functools.cache(
        lambda at: _computation(conv, at, precision, state=state if at == shape else None)
    )
    given = _tried(lambda: steps(grid).error_of_given_x())
    given *= carried_on(conv, grid, shape, precision, state)
    if smaller != shape:
        against += f" on a grid of {' x '.join(map(str, smaller))}, and carried on to this one"
    if precision == "float64" and not _HAS_WIDER:
        against = "by results rounded on purpose, for want of a wider longdouble"
        return Judgement(max(error, given, _modelled(conv, grid)), "modelled", against)
    if smaller != shape and conv._solves_by_applying:  # nothing is factored: y = K x tells all
        return Judgement(given, "measured", against)
    random = _tried(lambda: steps(smaller).error_of_random_y(_NEAR * given))
    return Judgement(max(error, given, random), "measured", against)


def _by_frequencies(conv: Protocol, shape: Shape, precision: str, state: State | None) -> float:
    """Return the error of what is spectral in an operator."""
    working = conv._on_host(np.dtype(precision))
    known = None if state is None or not conv._spectral else state.as_numpy()
    return _tried(lambda: working._error_by_frequencies(shape, known))


def carried_on(
    conv: Protocol, grid: Shape, shape: Shape, precision: str, state: State | None = None
) -> float:
    """Return what noise grows by, from a grid to a larger one, on its way through K^-1; at least 1.

    ``state`` is the operator factored for the larger one, where that is known.
    """
    if grid == shape:
        return 1.0
    known = None if state is None else state.as_numpy()
    here, there = _gain(conv, grid, precision), _gain(conv, shape, precision, known)
    return max(1.0, there / here) if math.isfinite(there) and here else math.inf


def _gain(conv: Protocol, shape: Shape, precision: str, state: State | None = None) -> float:
    """Return the largest entry of the inverse of noise, which the operator remembers."""

    def measure() -> float:
        solve = (
            conv._on_host(np.dtype(precision))._factor(shape) if state is None else state
        ).solve
        # of one sign, as images are, whose rounding errors may add up from pixel to pixel
        noise = np.random.default_rng().uniform(size=(1, conv.channels, *shape))
        return float(np.abs(solve(noise.astype(precision))).max())

    found: float = conv._conditions.find(f"gain, {precision}", shape, lambda: _tried(measure))
    return found


def about_condition(conv: Protocol, shape: Shape, precision: str) -> tuple[float, bool]:
    """Return the condition number, and whether it is carried on from a smaller grid."""
    known = conv._spectral or conv._pixelwise
    grid = shape if known else affordable(conv, shape, "float64", times=ESTIMATE)
    number = conditions.remembered(conv, grid)
    number *= carried_on(conv, grid, shape, precision)
    return number, grid != shape and math.isfinite(number)


def blame(conv: Protocol, shape: Shape, precision: str) -> Step | None:
    """Return the step that loses most, None where nothing can be said."""
    if not (steps := len(conv._operators())):
        return None
    try:
        grid = affordable(conv, shape, precision, higher=True, times=steps)
        with np.errstate(all="ignore"):
            return _computation(conv, grid, precision, factored=precision == "float32").to_blame()
    except FAILURES:
        return None


def _tried(measure: Callable[[], float]) -> float:
    try:
        with np.errstate(all="ignore"):
            return measure()
    except FAILURES:
        return math.inf


def _computation(
    conv: Protocol,
    shape: Shape,
    precision: str,
    factored: bool = False,
    state: State | None = None,
) -> Computation:
    if conv._pixelwise:
        shape, state = _few_pixels(shape), None
    dtypes = np.dtype(precision), np.dtype(_HIGHER[precision])
    working = conv._on_host(dtypes[0])
    higher = working._on_host(dtypes[1])  # of the same, rounded values
    runs = working._computation(shape, state=state)
    if library_name(conv._reference()[1]) == "jax":  # XLA takes subnormal numbers for zero
        runs = [step.flushed() for step in runs]
    steps = runs, higher._computation(shape, factored)
    most = max(1, int(_WORK / _work(conv, shape, precision, higher=True)))
    found = Computation(*steps, dtypes, (conv.channels, *shape), conv._pixelwise, most)
    return found if factored else found.refined()


def _few_pixels(shape: Shape) -> Shape:
    return (min(size(shape), _PIXELS), *(1 for _ in shape[1:])) if shape else shape


def affordable(
    conv: Protocol, shape: Shape, precision: str, *, higher: bool = False, times: float = 1
) -> Shape:
    """Return a part of a grid on which K x is quick enough, or of few numbers.

    Its longest axes are halved, or divided by their least factor where the grid is closed.

    Parameters
    ----------
    higher : bool
        In the higher precision; else in that which is judged.
    times : float
        How often it is to be done.
    """
    a_pixel = times * _work(conv, shape, precision, higher) / size(shape)
    while (
        conv.channels * size(shape) > _LEAST and size(shape) > 1 and a_pixel * size(shape) > _WORK
    ):
        longest = int(np.argmax(shape))
        n = shape[longest]
        # a closed grid has the frequencies of its parts, of which none is worse conditioned
        part = n // _least_factor(n) if conv._closed else (n + 1) // 2
        shape = (*shape[:longest], part, *shape[longest + 1 :])
    return shape


def _least_factor(n: int) -> int:
    return next((d for d in range(2, math.isqrt(n) + 1) if n % d == 0), n)


def _work(conv: Protocol, shape: Shape, precision: str, higher: bool) -> float:
    """Return the cost of K x of an image: in the higher precision, or in that which is judged."""
    longdouble = higher and precision == "float64"
    slow = _LONGDOUBLE if longdouble else 1 / conv.channels + _BLAS
    products = conv._products(shape, compiled=not longdouble)
    return slow * products + _NUMBER * conv.channels * size(shape)


def _modelled(conv: Protocol, shape: Shape) -> float:
    """Return the error of float64 where every step's result is rounded once more."""
    kind = np.dtype(np.float64)

    def measure() -> float:
        exact = conv._on_host(kind)._computation(shape)
        rounded = [step.rounded(EPS["float64"]) for step in exact]
        return Computation(
            rounded, exact, (kind, kind), (conv.channels, *shape)
        ).error_of_random_y()

    return _tried(measure)
