"""Which grid is small enough to judge on, and what is carried on from there to a larger one.

    cost of K x of an image = slow * products + 8 C pixels
    error on the larger grid = error of y = K x * |K^-1 noise| there / |K^-1 noise| here

The products are of taps with numbers, one by one and not compiled, so that beside a solve they
would take long where a kernel is wide or a grid is large. Rounding errors of y = K x go through
K^-1 as noise does, whose solve is one more of those that are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from invconv.arrays.namespaces import Shape, size
from invconv.operators.base import conditions
from invconv.operators.base.protocol import Protocol
from invconv.solve.state import State
from invconv.trust.condition import FAILURES

# The cost of K x of an image, in additions of arrays of numbers: a product is one of these and
# as much as a C-th of another one; a number of the image is drawn, solved for and compared
WORK, _ESTIMATE = 2.0**18, 2.0**19  # of samples; and of norms
_BLAS, _LONGDOUBLE, _NUMBER = 1 / 8, 4.0, 8.0
_LEAST = 2**7  # numbers of an image
_GROWN = 2.0
_COMPILED, _APPLIED = 16, 12  # times as quick are compiled products; K x in estimating a norm


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
    return _part(conv, shape, times * _work(conv, shape, precision, higher), WORK)


def estimable(conv: Protocol, shape: Shape, times: float = 1) -> Shape:
    """Return the same for estimates of so many norms, by compiled kernels in float64."""
    products = conv._on_host(np.float64)._products(shape) / _COMPILED
    numbers = _NUMBER * conv.channels * size(shape)
    alike = None not in conv._longest_columns(shape, transposed=False)
    applied = min(_APPLIED, 2 * conv.channels) if alike else _APPLIED  # of one column of a channel
    return _part(conv, shape, times * applied * (products + numbers), _ESTIMATE)


def _part(conv: Protocol, shape: Shape, work: float, most: float) -> Shape:
    a_pixel = work / size(shape)
    least = max(1.0, _LEAST / conv.channels)
    while size(shape) > least and a_pixel * size(shape) > most:
        longest = int(np.argmax(shape))
        n = shape[longest]
        # a closed grid has the frequencies of its parts, of which none is worse conditioned
        part = n // _least_factor(n) if conv._closed else (n + 1) // 2
        shape = (*shape[:longest], part, *shape[longest + 1 :])
    return shape


def _least_factor(n: int) -> int:
    return next((d for d in range(2, math.isqrt(n) + 1) if n % d == 0), n)


def samples(conv: Protocol, shape: Shape, precision: str) -> int:
    """Return for how many images K x is quick enough in the higher precision."""
    return max(1, int(WORK / _work(conv, shape, precision, higher=True)))


def _work(conv: Protocol, shape: Shape, precision: str, higher: bool) -> float:
    """Return the cost of K x of an image: in the higher precision, or in that which is judged."""
    longdouble = higher and precision == "float64"
    slow = _LONGDOUBLE if longdouble else 1 / conv.channels + _BLAS
    products = conv._on_host(np.float64)._products(shape, compiled=not longdouble)
    return slow * products + _NUMBER * conv.channels * size(shape)


def carried_on(
    conv: Protocol, grid: Shape, shape: Shape, precision: str, state: State | None = None
) -> float:
    """Return what noise grows by, from a grid to a larger one, on its way through K^-1.

    1 below 2, since the largest of more numbers is larger. ``state`` is the operator factored for
    the larger one, where that is known.
    """
    if grid == shape:
        return 1.0
    known = None if state is None else state.as_numpy()
    here, there = _gain(conv, grid, precision), _gain(conv, shape, precision, known)
    grown = there / here if math.isfinite(there) and here else math.inf
    return grown if grown > _GROWN else 1.0


def _gain(conv: Protocol, shape: Shape, precision: str, state: State | None = None) -> float:
    """Return the largest entry of the inverse of noise, which the operator remembers."""

    def measure() -> float:
        whole = conv._on_host(np.dtype(precision))._factor(shape) if state is None else state
        # of one sign, as images are, whose rounding errors may add up from pixel to pixel
        noise = np.random.default_rng().uniform(size=(1, conv.channels, *shape))
        return float(np.abs(whole.solve(noise.astype(precision))).max())

    known: float = conv._conditions.find("gain", shape, lambda: tried(measure))
    if math.isfinite(known) or precision == "float32":
        return known
    found: float = conv._conditions.find("gain, float64", shape, lambda: tried(measure))
    return found


def about_condition(conv: Protocol, shape: Shape, precision: str) -> tuple[float, bool]:
    """Return the condition number, and whether it is carried on from a smaller grid."""
    known = conv._spectral or conv._pixelwise
    grid = shape if known else estimable(conv, shape)
    number = conditions.remembered(conv, grid)
    number *= carried_on(conv, grid, shape, precision)
    return number, grid != shape and math.isfinite(number)


def tried(measure: Callable[[], float]) -> float:
    """Return what a function measures, inf where an inverse fails."""
    try:
        with np.errstate(all="ignore"):
            return measure()
    except FAILURES:
        return math.inf
