"""How a path runs on images, and how cotangents are pulled back through it.

A route has a leg for each factor, or one for a run of matrices, which are multiplied first:

    A_3 A_2 A_1 x = (A_3 A_2 A_1) x,    and K (W x) = (K W) x: W goes into the taps of K
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from invconv.arrays.namespaces import Array, Shape
from invconv.families import path as paths
from invconv.families.family import BOTH, Apply, Bias, Family, Leg, Shift, Solve, Wanted
from invconv.families.legs import Merged, Multiply, Undo, undoing
from invconv.families.path import Bars, Factor, Path
from invconv.families.pointwise import Pointwise, Scale
from invconv.kernels.primitives import nan_where_singular


class Route:
    """The legs of a path, on one grid.

    ``guard`` is log|det| of the factors that are solved, if it was not readable; the result is NaN
    where it is -inf. ``pixels`` is the number of pixels of all images: a matrix goes into the taps
    of a convolution if there are fewer taps. ``bare`` legs only pull back: nothing is factored.
    """

    def __init__(
        self, path: Path, shape: Shape, guard: Any = None, *, pixels: int = 0, bare: bool = False
    ) -> None:
        self.path, self.shape, self.guard = path, shape, guard
        self.legs = _legs(path, shape, pixels, bare)

    def __call__(self, x: Array) -> Array:
        """Return the result for x (B, C, *spatial)."""
        for leg in self.legs:
            x = leg(x)
        return x if self.guard is None else nan_where_singular(x, self.guard)

    def saving(self, x: Array, log_det: bool = True) -> tuple[Array, Any, Memo]:
        """Return the result, log|det| or None, and a memo for the derivative of both."""
        kept = []
        for leg in self.legs:
            y = leg(x)
            kept.append((x if leg.keeps_start else None, y if leg.keeps_end else None))
            x = y
        x = x if self.guard is None else nan_where_singular(x, self.guard)
        number, memos = None, None
        if log_det:
            number, memos = paths.log_det(self.path, self.shape, saving=True)
        return x, number, Memo(self, kept, memos)

    def pull_back(
        self, kept: Sequence[tuple[Any, Any]], bar: Array, wanted: Wanted = BOTH
    ) -> tuple[Bars, Any]:
        """Return the gradients of <bar, y> by the weights of every factor, and by x.

        ``kept`` has the start and the end of each leg, as far as the leg needs them.
        """
        if self.guard is not None:
            bar = nan_where_singular(bar, self.guard)
        bars: list[Bars] = []
        for i in reversed(range(len(self.legs))):
            inner = wanted[0], wanted[1] or i > 0
            own, bar = self.legs[i].pull_back(*kept[i], bar, inner)
            bars.append(own)
        return [one for own in reversed(bars) for one in own], bar


class Memo(NamedTuple):
    """A route, the points of its legs, and memos of log_det: for the derivative of both."""

    route: Route
    kept: Sequence[tuple[Any, Any]]
    memos: Any

    def pull_back(self, bar: Any, log_det_bar: Any, wanted: Wanted) -> tuple[Bars, Any]:
        """Return the gradients of <bar, y> + log_det_bar log|det| by all weights, and by x."""
        route = self.route
        bars: Bars = [None] * len(route.path)
        x_bar = None
        if bar is not None:
            bars, x_bar = route.pull_back(self.kept, bar, wanted)
        if wanted[0] and log_det_bar is not None:
            bars = paths.add_log_det_vjp(bars, route.path, route.shape, self.memos, log_det_bar)
        return bars, x_bar


def _legs(path: Path, shape: Shape, pixels: int, bare: bool) -> list[Leg]:
    legs: list[Leg] = []
    for run in runs(path):
        family, w, inverted = run[0]
        if type(family) is Shift:
            legs.append(Bias(w, inverted))
        elif inverted and undone_as_one(run):
            legs.append(Undo(run, None if bare else undoing(run)))
        elif inverted:
            legs.append(Solve(family, w, None if bare else family.factor(w, shape)))
        elif multiplied(run):
            legs.append(Multiply(run))
        elif legs and isinstance(legs[-1], Multiply) and _takes(family, pixels):
            legs[-1] = Merged(legs[-1], run[0])
        else:
            legs.append(Apply(family, w, family.prepared(w, shape)))
    return legs


def runs(path: Path) -> list[list[Factor]]:
    """Split a path into runs of matrices of one direction, and single other factors."""
    split: list[list[Factor]] = []
    for factor in path:
        if split and _joins(split[-1][-1], factor):
            split[-1].append(factor)
        else:
            split.append([factor])
    separate: list[list[Factor]] = []
    for run in split:
        scales = len(run) > 1 and all(isinstance(factor.family, Scale) for factor in run)
        separate += [[factor] for factor in run] if scales else [run]
    return separate


def _joins(last: Factor, factor: Factor) -> bool:
    one, other = last.family, factor.family
    if not (isinstance(one, Pointwise) and isinstance(other, Pointwise)):
        return False
    stepwise = one.stepwise and other.stepwise
    return last.inverted == factor.inverted and (stepwise or not factor.inverted)


def multiplied(run: Sequence[Factor]) -> bool:
    """Tell whether a run becomes one matrix; a scale alone is quicker as it is."""
    family = run[0].family
    return isinstance(family, Pointwise) and (len(run) > 1 or not isinstance(family, Scale))


def _takes(family: Family, pixels: int) -> bool:
    """Tell whether it is less work to put a matrix into the taps of a convolution."""
    free = getattr(getattr(family, "linear", None), "free", None)
    return free is not None and len(free.offsets) < pixels


def undone_as_one(run: Sequence[Factor]) -> bool:
    """Tell whether an inverted run is undone factor by factor; else it is one factor's solve."""
    family = run[0].family
    return isinstance(family, Pointwise) and (len(run) > 1 or family.needs_y)
