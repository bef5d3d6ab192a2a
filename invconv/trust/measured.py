"""What an inverse loses as it runs: measured on random samples, in two precisions.

    |x' - x| / |x|  in the largest entries, for x' = K^-1 y as it runs, on y = K x and on random y

A computation is a list of steps, each with its map and its inverse. All of them run in the working
precision; which x belongs to a random y is found in a higher one, where each step's solve is that
of the working precision, refined: no step is factored twice.

Few samples tell enough where little is lost. Where errors grow, they differ from sample to sample
by more than ten times, so that more are drawn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Shape, size
from invconv.solve.state import Map

Floats = np.ndarray[Any, Any]

_NUMBERS, _LOSSY_NUMBERS = 2**14, 2**18  # in all samples; where much is lost
_FEWEST, _MOST, _LOSSY_MOST = 6, 96, 24  # samples of a batch; of all where much is lost
_KINDS = 3  # of samples
_LOSSY = 1e3  # eps from which on an error counts as much
_SMALL = 2.0**-100  # y, of which ordinary ones are so many times as large that x may overflow
_NEAR = 0.3  # of the errors of y = K x, from which on those of random y count
_REFINEMENTS = 8
_CONVERGES = 0.5  # of x, moved by the last refinement; and the share of what the one before
_QUICKLY = 0.05  # it moved, at which refinement ends
# Rounding adds an error of 2^e eps / sqrt(12) to a number m 2^e: 0.21 eps on the average over
# 1 <= m < 2 by Benford's law, as a number that is uniform between so much and its negative does
_ROUNDING = math.sqrt(3 * 0.375 / math.log(2) / 12)


@dataclass(frozen=True)
class Step:
    """A step of a computation, on arrays (B, C, *spatial) of one precision.

    Attributes
    ----------
    name : str
        As `parameters` prefixes it: "first", "0", "1.second".
    kind : str
        The name of the operator's class.
    apply, solve : callable
        x -> K x + b and its inverse.
    solve_linear : callable
        y -> K^-1 y.
    turned : bool
        Whether it is solved on the way forward and applied on the way back.
    refine : callable, optional
        y and the x of a lower precision -> K^-1 (y - b).
    """

    name: str
    kind: str
    apply: Map
    solve: Map
    solve_linear: Map
    turned: bool = False
    refine: Callable[[Floats, Floats], Floats] | None = None

    def forward(self, x: Floats) -> Floats:
        """Return what the step makes of x."""
        result: Floats = (self.solve if self.turned else self.apply)(x)
        return result

    def backward(self, y: Floats) -> Floats:
        """Return what the step made y of."""
        result: Floats = (self.apply if self.turned else self.solve)(y)
        return result

    def within(self, prefix: str) -> Step:
        """Return the same step as a part of another operator."""
        return replace(self, name=f"{prefix}.{self.name}" if self.name else prefix)

    def inverted(self) -> Step:
        """Return the step that undoes this one."""
        return replace(self, turned=not self.turned)

    def cast(self, inside: Any, outside: Any) -> Step:
        """Return the step in a precision, for arrays of another one."""
        return self._around(lambda run: lambda a: run(a.astype(inside)).astype(outside))

    def flushed(self) -> Step:
        """Return the step of a library that takes subnormal numbers for zero."""
        return self._around(lambda run: lambda a: _without_subnormals(run(_without_subnormals(a))))

    def rounded(self, eps: float) -> Step:
        """Return the step with results that are rounded once more, to a relative eps."""
        rng = np.random.default_rng()

        def rounding(run: Map) -> Map:
            def rounded(a: Floats) -> Floats:
                result: Floats = run(a)
                return result * (1 + eps * rng.uniform(-_ROUNDING, _ROUNDING, result.shape))

            return rounded

        return self._around(rounding)

    def _around(self, function: Callable[[Map], Map]) -> Step:
        apply, solve, linear = map(function, (self.apply, self.solve, self.solve_linear))
        return replace(self, apply=apply, solve=solve, solve_linear=linear)

    def refined_by(self, rough: Step, dtypes: tuple[Any, Any]) -> Step:
        """Return the step with a solve that refines one of a lower precision.

            x <- x + K^-1 (y - (K x + b))

        The errors e of such solves are e, e^2, e^3, ...: the second is exact enough to tell the
        first. It gives NaN where the rough solve has no right digit.
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
    found: Floats = np.where(np.abs(a) < np.finfo(a.dtype).smallest_normal, a.dtype.type(0), a)
    return found


def shift(name: str, by: Map) -> Step:
    """Return the step that adds a bias, of which ``by`` makes an array to be added."""
    return Step(name, "bias", lambda x: x + by(x), lambda y: y - by(y), lambda y: y)


def unknown(y: Floats) -> Floats:
    """Stand for the solve of a step that is not factored."""
    raise NotImplementedError


@dataclass(frozen=True)
class Computation:
    """The steps of an operator in the precision they run in, and in a higher one.

    Attributes
    ----------
    working, higher : sequence of Step
        The first runs first.
    dtypes : (dtype, dtype)
        NumPy's, of the two.
    sample : tuple of int
        (C, *spatial).
    shares_factors : bool
        Whether both ways may use the same computed factors, whose rounding errors then cancel.
    most : number
        Samples of a batch that are quick enough; some are drawn in any case.
    """

    working: Sequence[Step]
    higher: Sequence[Step]
    dtypes: tuple[Any, Any]
    sample: Shape
    shares_factors: bool = False
    most: float = math.inf

    def refined(self) -> Self:
        """Return the computation whose higher precision refines the solves of the other one."""
        pairs = zip(self.higher, self.working, strict=True)
        return replace(self, higher=[high.refined_by(low, self.dtypes) for high, low in pairs])

    def error(self) -> float:
        """Return the largest relative error of an entry, over samples that are drawn anew.

        inf where the working precision overflows or has no right digit.
        """
        given = self.error_of_given_x()
        return max(given, self.error_of_random_y(_NEAR * given))

    def error_of_given_x(self) -> float:
        """Return the error on y = K x, whose x is known: no solve runs in the higher precision.

        Where factors are shared, on y that another computation found, too.
        """
        return self._largest(self._on_given_x)

    def error_of_random_y(self, least: float = 0.0) -> float:
        """Return the error on random y, of few samples where it is below ``least``.

        Where those of an ordinary size have no x in range, they are as small as K x is.
        """
        error = self._largest(self._on_random_y, least)
        if math.isinf(error) and 0 < (small := self._size_of_y()) < _SMALL:
            unit = 2.0 ** math.floor(math.log2(small))
            error = self._largest(functools.partial(self._on_random_y, unit=unit), least)
        return error

    def _size_of_y(self) -> float:
        """Return the largest entry of K x + b for a random x."""
        x = _drawn((1, *self.sample)).astype(self.dtypes[0])
        return float(np.abs(_forward(self.working, x)).max())

    def _largest(self, errors: Callable[[int], float], least: float = 0.0) -> float:
        """Return the largest error of a batch, or of several where much is lost."""
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
        return max(_largest_error(self._solved(y), x) for y in images)

    def _on_random_y(self, count: int, unit: float = 1.0) -> float:
        y = (unit * _drawn((count, *self.sample))).astype(self.dtypes[0])
        found, x = self._solved(y), y.astype(self.dtypes[1])
        only = self.higher[0]
        if len(self.higher) == 1 and only.refine and not only.turned:  # of what is found already
            return _largest_error(found, only.refine(x, found.astype(x.dtype)))
        for step in reversed(self.higher):
            x = step.backward(x)
        return _largest_error(found, x)

    def _solved(self, y: Floats) -> Floats:
        """Return x' as it runs."""
        for step in reversed(self.working):
            y = step.backward(y)
        return y

    def to_blame(self) -> Step:
        """Return the step that loses most where it alone runs in the working precision."""
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


def _drawn(shape: Shape) -> Floats:
    """Return samples of three kinds by turns: N(0, 1), even, and of one sign as images are.

    The rounding errors of an even image are alike at every pixel, so that they add up, but differ
    with its level.
    """
    rng = np.random.default_rng()
    samples = rng.standard_normal(shape)
    samples[1::_KINDS] = rng.uniform(0.5, 1, (len(samples[1::_KINDS]), *(1 for _ in shape[1:])))
    samples[2::_KINDS] = rng.uniform(size=samples[2::_KINDS].shape)
    return samples


def _largest_error(found: Floats, truth: Floats) -> float:
    """Return the largest error of an entry over the largest one of its sample.

    That counts for no less than in the median sample of its kind: by chance a sample of few numbers
    may have next to nothing left of it when a bias is subtracted.
    """
    axes = tuple(range(1, found.ndim))
    off, largest = np.abs(found - truth).max(axis=axes), np.abs(truth).max(axis=axes)
    for kind in range(_KINDS):
        mine = largest[kind::_KINDS]
        mine[...] = np.maximum(mine, np.median(mine)) if mine.size else mine
    return max(map(_ratio, off, largest))


def relative_error(found: Floats, truth: Floats) -> float:
    """Return the largest error of an entry over the largest entry; inf if that is no number."""
    return _ratio(np.abs(found - truth).max(), np.abs(truth).max())


def _ratio(off: Any, largest: Any) -> float:
    if not off:
        return 0.0
    error = float(off / largest) if largest else math.inf
    return error if math.isfinite(error) else math.inf
