"""The error of an inverse as it runs, measured on random samples in two precisions.

    |x' - x| / |x|  in the largest entries, for x' = K^-1 y as it runs, on y = K x and on random y

A computation is a list of steps, each with its map and its inverse. They run in the working
precision. The true x of a random y is computed in a higher precision, by iterative refinement of
the working precision's solves: no step is factored twice.

If little is lost, few samples are enough. If errors grow, they differ from sample to sample by more
than ten times, so more samples are drawn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Shape, size
from invconv.kernels.primitives import Map

Floats = np.ndarray[Any, Any]

_NUMBERS, _LOSSY_NUMBERS = 2**14, 2**18  # numbers in all samples; if much is lost
_FEWEST, _MOST, _LOSSY_MOST = 6, 96, 24  # samples of a batch; of all batches if much is lost
_KINDS = 3  # kinds of samples
_LOSSY = 1e3  # eps: a larger error counts as much
_SMALL = 2.0**-100  # size of y = K x: if it is below, x of an ordinary y may overflow
NEAR = 0.3  # errors of random y count if they exceed this part of the errors of y = K x
_REFINEMENTS = 8
_CONVERGES = 0.5  # relative change of x by the last refinement, at most, for x to be trusted
_QUICKLY = 0.05  # refinement ends if x changes by less than this part of the change before
# Rounding m 2^e has an error of 2^e eps / sqrt(12) in the root mean square: relative to the number
# 0.21 eps, for 1 <= m < 2 by Benford's law, as a uniform error up to +-_ROUNDING eps has
_ROUNDING = math.sqrt(3 * 0.375 / math.log(2) / 12)


@dataclass(frozen=True)
class Step:
    """A step of a computation, on arrays (B, C, *spatial) of one precision."""

    name: str  # its prefix in `parameters`: "first", "0", "1.second"
    kind: str  # the name of the operator's class
    apply: Map  # x -> K x + b
    solve: Map  # its inverse
    solve_linear: Map  # y -> K^-1 y
    turned: bool = False  # True if the forward map is a solve and the inverse a product
    refine: Callable[[Floats, Floats], Floats] | None = None  # (y, rough x) -> K^-1 (y - b)

    @property
    def forward(self) -> Map:
        """The step's forward map."""
        return self.solve if self.turned else self.apply

    @property
    def backward(self) -> Map:
        """The step's inverse map."""
        return self.apply if self.turned else self.solve

    def cast(self, inside: Any, outside: Any) -> Step:
        """Return the step in a precision, ``inside``, for arrays of another one, ``outside``."""
        return self._around(lambda run: lambda a: run(a.astype(inside)).astype(outside))

    def flushed(self) -> Step:
        """Return the step as it runs in a library that flushes subnormal numbers to zero."""
        return self._around(lambda run: lambda a: _without_subnormals(run(_without_subnormals(a))))

    def rounded(self, eps: float) -> Step:
        """Return the step with results rounded once more, to a relative eps."""
        rng = np.random.default_rng()

        def noisy(a: Floats) -> Floats:
            return a * (1 + eps * rng.uniform(-_ROUNDING, _ROUNDING, a.shape))

        return self._around(lambda run: lambda a: noisy(run(a)))

    def _around(self, function: Callable[[Map], Map]) -> Step:
        apply, solve, linear = map(function, (self.apply, self.solve, self.solve_linear))
        return replace(self, apply=apply, solve=solve, solve_linear=linear)

    def refined_by(self, rough: Step, dtypes: tuple[Any, Any]) -> Step:
        """Return the step with a solve that refines the solve of a lower precision.

            x <- x + K^-1 (y - (K x + b))

        The errors are e, e^2, e^3, ...: the second is small enough to measure the first. The result
        is NaN if the rough solve has no right digit.
        """
        cast = rough.cast(*dtypes)
        start, correct = cast.solve, cast.solve_linear

        def refine(y: Floats, x: Floats) -> Floats:
            moved = 1.0
            for _ in range(_REFINEMENTS):
                closer = x + correct(y - self.apply(x))
                before, moved = moved, relative_error(x, closer)
                x = closer
                if not _QUICKLY * before < moved < before:
                    break
            return x if moved < _CONVERGES else np.full_like(x, math.nan)

        return replace(self, solve=lambda y: refine(y, start(y)), refine=refine)


def _without_subnormals(a: Floats) -> Floats:
    flushed: Floats = np.where(np.abs(a) < np.finfo(a.dtype).smallest_normal, a.dtype.type(0), a)
    return flushed


@dataclass(frozen=True)
class Computation:
    """The steps of an operator in the precision they run in, and in a higher one."""

    working: Sequence[Step]  # the first runs first
    higher: Sequence[Step]
    dtypes: tuple[Any, Any]  # NumPy's, of the two
    sample: Shape  # (C, *spatial)
    # True if forward map and inverse may use the same computed factors, whose rounding cancels
    shares_factors: bool = False
    most: float = math.inf  # samples of a batch that are quick; _FEWEST are drawn in any case

    def refined(self) -> Self:
        """Return the computation with solves in the higher precision by iterative refinement."""
        pairs = zip(self.higher, self.working, strict=True)
        return replace(self, higher=[high.refined_by(low, self.dtypes) for high, low in pairs])

    def error(self) -> float:
        """Return the larger of both errors: inf if the working precision overflows."""
        given = self.error_of_given_x()
        return max(given, self.error_of_random_y(NEAR * given))

    def error_of_given_x(self) -> float:
        """Return the error on y = K x with a known x: no solve runs in the higher precision.

        If factors are shared, y is also computed in the higher precision; the larger error counts.
        """
        return self._largest(self._on_given_x)

    def error_of_random_y(self, least: float = 0.0) -> float:
        """Return the error on random y; few samples are drawn if it is below ``least``.

        If x overflows for y of an ordinary size, y is scaled to the size of K x.
        """
        error = self._largest(self._on_random_y, least)
        if math.isinf(error):
            y = _forward(self.working, _drawn((1, *self.sample)).astype(self.dtypes[0]))
            if 0 < (size_of_y := float(np.abs(y).max())) < _SMALL:
                unit = 2.0 ** math.floor(math.log2(size_of_y))
                error = self._largest(functools.partial(self._on_random_y, unit=unit), least)
        return error

    def _largest(self, errors: Callable[[int], float], least: float = 0.0) -> float:
        """Return the largest error of one batch, or of several if much is lost."""
        numbers = size(self.sample)
        few = int(min(max(min(_NUMBERS // numbers, self.most), _FEWEST), _MOST))
        more = min(max(_LOSSY_NUMBERS // numbers, _FEWEST), _LOSSY_MOST)
        error, drawn = errors(few), few
        lossy = max(least, _LOSSY * float(np.finfo(self.dtypes[0]).eps))
        while drawn < more and lossy < error < 1:
            error, drawn = max(error, errors(few)), drawn + few
        return error

    def _on_given_x(self, count: int) -> float:
        x = _drawn((count, *self.sample)).astype(self.dtypes[0])
        images = [_forward(self.working, x)]
        if self.shares_factors:
            images.append(_forward(self.higher, x.astype(self.dtypes[1])).astype(self.dtypes[0]))
        return max(_largest_error(_backward(self.working, y), x) for y in images)

    def _on_random_y(self, count: int, unit: float = 1.0) -> float:
        y = (unit * _drawn((count, *self.sample))).astype(self.dtypes[0])
        solved, x = _backward(self.working, y), y.astype(self.dtypes[1])
        only = self.higher[0]
        if len(self.higher) == 1 and only.refine and not only.turned:  # refine this solution
            return _largest_error(solved, only.refine(x, solved.astype(x.dtype)))
        return _largest_error(solved, _backward(self.higher, x))

    def to_blame(self) -> Step:
        """Return the step with the largest error if it alone runs in the working precision."""
        lost = []
        for i, step in enumerate(self.working):
            mixed = [*self.higher[:i], step.cast(*self.dtypes), *self.higher[i + 1 :]]
            alone = replace(self, working=mixed, dtypes=(self.dtypes[1],) * 2)
            lost.append(alone.error())
        return self.working[int(np.argmax(lost))]


def _forward(steps: Sequence[Step], x: Floats) -> Floats:
    for step in steps:
        x = step.forward(x)
    return x


def _backward(steps: Sequence[Step], y: Floats) -> Floats:
    for step in reversed(steps):
        y = step.backward(y)
    return y


def _drawn(shape: Shape) -> Floats:
    """Return samples of three kinds in turn: N(0, 1), constant, and of one sign as images are.

    Rounding errors of a constant image add up: they are the same at every pixel.
    """
    rng = np.random.default_rng()
    samples = np.empty(shape)
    samples[::_KINDS] = rng.standard_normal(samples[::_KINDS].shape)
    samples[1::_KINDS] = rng.uniform(0.5, 1, (len(samples[1::_KINDS]), *(1 for _ in shape[1:])))
    samples[2::_KINDS] = rng.uniform(size=samples[2::_KINDS].shape)
    return samples


def _largest_error(solved: Floats, truth: Floats) -> float:
    """Return the largest error of an entry over the largest entry of its sample.

    The largest entry counts as at least that of the median sample of its kind: by chance a sample
    of few numbers may almost vanish when a bias is subtracted.
    """
    axes = tuple(range(1, solved.ndim))
    off, largest = np.abs(solved - truth).max(axis=axes), np.abs(truth).max(axis=axes)
    for kind in range(_KINDS):
        mine = largest[kind::_KINDS]
        mine[...] = np.maximum(mine, np.median(mine)) if mine.size else mine
    return max(map(_ratio, off, largest))


def relative_error(x: Floats, truth: Floats) -> float:
    """Return the largest error of an entry over the largest entry; inf if it is not finite."""
    return _ratio(np.abs(x - truth).max(), np.abs(truth).max())


def _ratio(off: Any, largest: Any) -> float:
    if not off:
        return 0.0
    return float(off / largest) if largest and math.isfinite(off / largest) else math.inf
