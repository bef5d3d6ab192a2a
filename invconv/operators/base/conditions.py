"""Condition numbers of operators, and grids that are small enough to judge an inverse on.

`invconv.trust` computes the numbers of maps, in NumPy float64. This module copies an operator to
the host, runs its path there, and explains an infinite number.

    cost of K x of an image = slow * products + 8 C pixels
    error on the larger grid = error of y = K x * |K^-1 noise| there / |K^-1 noise| here

The products are of taps with numbers, one by one and not compiled: with a wide kernel or on a large
grid they would take far longer than the solve. Rounding errors of y = K x grow in K^-1 as noise
does, so solves of noise give the growth from the smaller grid to the larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Shape, size, to_numpy
from invconv.families import path as paths
from invconv.families.path import Path, State
from invconv.families.pointwise import Matrix
from invconv.kernels.primitives import Map, in_turn
from invconv.operators.base.factors import Factored, require_regular
from invconv.trust.condition import (
    FAILURES,
    OVERFLOW,
    Condition,
    SolveOverflowError,
    norms,
    of_inverse,
    of_norms,
)


def number(conv: Factored, shape: Shape, norm: float | None = None) -> Condition:
    """Return the condition of any operator, from its values in host memory.

    Unless a norm is given, 1 or inf, it is the 2-norm if the families know it, else the 1-norm.
    """
    try:
        with np.errstate(all="ignore"):
            host = conv.asarrays(np.empty(0))
            require_regular(host, shape)
            require_regular(host, shape, back=True)
            condition = _condition(paths.linear(host._path()), host.channels, shape, norm)
        if math.isfinite(condition.condition):
            return condition
        raise SolveOverflowError
    except SingularConvError as error:
        trouble = str(error)
    except (SolveOverflowError, np.linalg.LinAlgError):
        trouble = broken(conv) or OVERFLOW
    return Condition(math.inf, "any norm", trouble=trouble)


def broken(conv: Factored) -> str:
    """Return which parameters hold NaN or inf, in words, or ""."""
    names = [n for n, a in conv.parameters().items() if not np.isfinite(to_numpy(a)).all()]
    return f"{', '.join(names)} holds NaN or inf" if names else ""


def remembered(conv: Factored, shape: Shape, norm: float | None = None) -> float:
    """Return the condition number, which is computed at the first call and remembered."""
    kind = f"condition, {norm}"
    return conv._conditions.find(kind, shape, lambda: number(conv, shape, norm).condition)


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
    first = longest_columns(here, shape)
    later = partial(linear_maps, there, shape)
    return linear_maps(here, shape), later, (channels, *shape), first, products


def longest_columns(path: Path, shape: Shape) -> tuple[int | None, ...]:
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


# The cost of K x of an image is counted in additions of arrays. With BLAS a product costs _BLAS and
# a C-th; in longdouble, _LONGDOUBLE. A number of the image costs _NUMBER: it is drawn, solved for
# and compared.
WORK, _ESTIMATE = 2.0**18, 2.0**19  # the cost at most of samples, and of estimated norms
_BLAS, _LONGDOUBLE, _NUMBER = 1 / 8, 4.0, 8.0
_LEAST = 2**7  # numbers of an image at least
_GROWN = 2.0  # growth of noise that counts
_IMAGES, _NOISE = 8, 3 * 2.0**21  # images of noise at most; and their cost by compiled solves
_COMPILED, _APPLIED = 16, 12  # speed-up of compiled products; products K x in estimating a norm


def affordable(
    conv: Factored, shape: Shape, precision: str, *, higher: bool = False, times: float = 1
) -> Shape:
    """Return the grid, reduced until ``times`` products K x are quick enough.

    They run in the precision that is judged, or in the higher one.
    """
    return _part(conv, shape, times * _work(conv, shape, precision, higher), WORK)


def estimable(conv: Factored, shape: Shape, times: float = 1) -> Shape:
    """Return the grid, reduced until compiled kernels estimate ``times`` norms quickly."""
    alike = None not in longest_columns(paths.linear(conv._path()), shape)
    applied = min(_APPLIED, 2 * conv.channels) if alike else _APPLIED  # or one column a channel
    return _part(conv, shape, times * applied * _compiled_work(conv, shape), _ESTIMATE)


def _compiled_work(conv: Factored, shape: Shape) -> float:
    """Return the cost of a compiled K x, or of a solve, of one image."""
    products = _products(conv, shape) / _COMPILED
    return products + _NUMBER * conv.channels * size(shape)


def _products(conv: Factored, shape: Shape, compiled: bool = False) -> float:
    """Return about how many products K x takes for one sample."""
    path = paths.linear(conv._on_host(np.float64)._path())
    return sum(factor.family.products(factor.w, shape, compiled) for factor in path)


def _part(conv: Factored, shape: Shape, work: float, most: float) -> Shape:
    """Return the grid, reduced until the work is at most ``most`` or the image has few numbers."""
    a_pixel = work / size(shape)
    least = max(1.0, _LEAST / conv.channels)
    while size(shape) > least and a_pixel * size(shape) > most:
        longest = int(np.argmax(shape))
        n = shape[longest]
        # the frequencies of an n-th part of a closed grid are among its own: none is conditioned
        # worse
        part = n // _least_factor(n) if conv._closed else (n + 1) // 2
        shape = (*shape[:longest], part, *shape[longest + 1 :])
    return shape


def _least_factor(n: int) -> int:
    return next((d for d in range(2, math.isqrt(n) + 1) if n % d == 0), n)


def samples(conv: Factored, shape: Shape, precision: str) -> int:
    """Return the number of images for which K x is quick enough in the higher precision."""
    return max(1, int(WORK / _work(conv, shape, precision, higher=True)))


def _work(conv: Factored, shape: Shape, precision: str, higher: bool) -> float:
    """Return the cost of K x of one image, in the higher precision or in the judged one."""
    longdouble = higher and precision == "float64"
    slow = _LONGDOUBLE if longdouble else 1 / conv.channels + _BLAS
    products = _products(conv, shape, compiled=not longdouble)
    return slow * products + _NUMBER * conv.channels * size(shape)


def carried_on(
    conv: Factored, grid: Shape, shape: Shape, precision: str, state: State | None = None
) -> float:
    """Return the growth of K^-1 noise from a grid to a larger one, ``shape``.

    A growth below 2 counts as 1, since the largest of more numbers is larger anyway. ``state`` is
    the operator factored for the larger grid, if it is known.
    """
    if grid == shape:
        return 1.0
    known = None if state is None else state.as_numpy()
    here, there = _gain(conv, grid, precision), _gain(conv, shape, precision, known)
    grown = there / here if math.isfinite(there) and here else math.inf
    return grown if grown > _GROWN else 1.0


def _gain(conv: Factored, shape: Shape, precision: str, state: State | None = None) -> float:
    """Return the largest entry of K^-1 noise, the mean of some images; it is remembered."""

    def measure() -> float:
        dtype: Any = np.dtype(precision)
        whole = conv._on_host(dtype)._factor(shape) if state is None else state
        # one image may hit what grows little, by chance ten times too little
        count = max(1, min(_IMAGES, int(_NOISE / _compiled_work(conv, shape))))
        # all of one sign, as in images, so that errors can add up from pixel to pixel
        noise = np.random.default_rng().random((count, conv.channels, *shape), dtype)
        solved = whole.solve(noise).reshape(count, -1)
        largest = np.maximum(solved.max(axis=1), -solved.min(axis=1))
        return float(largest.mean(dtype=np.float64))

    known = conv._conditions.find("gain", shape, lambda: tried(measure))
    if math.isfinite(known) or precision == "float32":
        return known
    return conv._conditions.find("gain, float64", shape, lambda: tried(measure))


def about_condition(conv: Factored, shape: Shape, precision: str) -> tuple[float, bool]:
    """Return the condition number, and whether it was extrapolated from a smaller grid."""
    known = conv._spectral or conv._pixelwise
    grid = shape if known else estimable(conv, shape)
    number = remembered(conv, grid)
    number *= carried_on(conv, grid, shape, precision)
    return number, grid != shape and math.isfinite(number)


def tried(measure: Callable[[], float]) -> float:
    """Return the result of a function, or inf if it raises one of `FAILURES`."""
    try:
        with np.errstate(all="ignore"):
            return measure()
    except FAILURES:
        return math.inf
