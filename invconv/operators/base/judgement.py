"""How far the inverse of an operator is off, as it runs: the judgement behind every warning.

A bound says at no cost where an inverse is safe (`invconv.trust.bound`). Elsewhere the error is
measured on the host (`invconv.trust.measured`): on y = K x, whose x is known, and on random y,
whose x is found in float64 for float32, and in longdouble for float64. Rounding is linear in eps,
so that float64 loses 2^-29 of what float32 does where that keeps a digit. Sums in longdouble are
slow: they are done on a crop of the grid, from where the error grows as that of results that are
rounded on purpose. Where longdouble is no wider than float64, that error has to do.

Of a convolution that frequencies decouple the error is found by frequencies instead, where K x by
its taps would outlast the solve (`invconv.trust.frequencies`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from invconv.arrays.namespaces import Shape, dtype_name, library_name, readable, size
from invconv.operators.base.protocol import Protocol
from invconv.solve.state import State
from invconv.trust.bound import error_bound
from invconv.trust.condition import EPS, FAILURES
from invconv.trust.measured import Computation, Step

Error = TypeVar("Error", bound=float | None)

_LINEAR = 0.05  # error up to which rounding in float32 tells that of float64
_PRODUCTS = 4e6  # of numbers in longdouble, an image, as a map is applied
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
    if precision == "float64" and remembered(conv, shape, "float32").error < _LINEAR:
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


def judge(conv: Protocol, shape: Shape, precision: str, state: State | None = None) -> Judgement:
    """Measure how far the inverse is off in a precision."""
    if state is not None and dtype_name(state.log_det.dtype) != precision:
        state = None
    if _products(conv, shape) > _PRODUCTS:
        known = None if state is None else state.as_numpy()
        by_frequencies = conv._on_host(np.dtype(precision))._error_by_frequencies
        if (error := _tried(lambda: by_frequencies(shape, known))) is not None:
            return Judgement(error, "measured", f"{_AGAINST[precision]} at single frequencies")
    if precision == "float32":
        error = _tried(lambda: _computation(conv, shape, precision, state=state).error())
        return Judgement(error, "measured", _AGAINST[precision])
    given = _tried(lambda: _computation(conv, shape, precision, state=state).error_of_given_x())
    if not _HAS_WIDER:
        against = "by results rounded on purpose, for want of a wider longdouble"
        return Judgement(max(given, _modelled(conv, shape)), "modelled", against)
    crop, against = _crop(conv, shape), _AGAINST[precision]
    state = state if crop == shape else None
    error = _tried(lambda: _computation(conv, crop, precision, state=state).error_of_random_y())
    if crop != shape:
        against += f" on a grid of {' x '.join(map(str, crop))}, and carried on to this one"
        single = remembered(conv, shape, "float32").error
        if single < _LINEAR:
            error = max(error, single * EPS["float64"] / EPS["float32"])
        else:
            error *= max(1.0, _modelled(conv, shape) / max(_modelled(conv, crop), EPS["float64"]))
    return Judgement(max(given, error), "measured", against)


def blame(conv: Protocol, shape: Shape, precision: str) -> Step | None:
    """Return the step that loses most, None where there is one, or nothing can be said."""
    if not conv._parts():
        return None
    try:
        grid = _crop(conv, shape) if precision == "float64" else shape
        with np.errstate(all="ignore"):
            return _computation(conv, grid, precision, factored=precision == "float32").to_blame()
    except FAILURES:
        return None


def _tried(measure: Callable[[], Error]) -> Error | float:
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
    found = Computation(*steps, dtypes, (conv.channels, *shape), conv._pixelwise)
    return found if factored else found.refined()


def _few_pixels(shape: Shape) -> Shape:
    return (min(size(shape), _PIXELS), *(1 for _ in shape[1:])) if shape else shape


def _crop(conv: Protocol, shape: Shape) -> Shape:
    """Return a grid whose longest axes are halved until longdouble is quick enough."""
    while size(shape) > 1 and _products(conv, shape) > _PRODUCTS:
        longest = int(np.argmax(shape))
        shape = (*shape[:longest], (shape[longest] + 1) // 2, *shape[longest + 1 :])
    return shape


def _products(conv: Protocol, shape: Shape) -> int:
    """Return how many products of a tap with a number K x takes, about, of one image."""
    return sum(size(a.shape) for a in conv._arrays().values()) * size(shape)


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
