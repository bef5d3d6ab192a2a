"""How a path runs on images, and how cotangents are pulled back through it.

A route has a leg for each factor, or one for a run of matrices: they are multiplied first, or
undone factor by factor:

    A_3 A_2 A_1 x = (A_3 A_2 A_1) x,    and K (W x) = (K W) x: W goes into the taps of K
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from invconv.arrays.namespaces import Array, Shape, namespace
from invconv.families import path as paths
from invconv.families.family import (
    BOTH,
    Apply,
    Bias,
    Family,
    Leg,
    Pulled,
    Shift,
    Solve,
    Wanted,
)
from invconv.families.path import Bars, Factor, Path
from invconv.families.pointwise import MATRIX, Pointwise, Scale
from invconv.kernels import maps
from invconv.kernels.matrices import PixelSteps, solver_of_steps
from invconv.kernels.primitives import (
    Solver,
    from_pixel_rows,
    matmul,
    nan_where_singular,
    pixel_rows,
)


class Route:
    """The legs of a path, on one grid.

    ``guard`` is log|det| of the factors that are solved, if it was not readable; the result is NaN
    where it is -inf. ``pixels`` is the number of pixels of all images: a matrix goes into the taps
    of a convolution if there are fewer taps.
    """

    def __init__(self, path: Path, shape: Shape, guard: Any = None, *, pixels: int = 0) -> None:
        self.path, self.shape, self.guard = path, shape, guard
        self.legs = _legs(path, shape, pixels)

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
        """Return the gradients of ``<bar, y>`` by the weights of every factor, and by x.

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


def _legs(path: Path, shape: Shape, pixels: int) -> list[Leg]:
    legs: list[Leg] = []
    for run in runs(path):
        family, w, inverted = run[0]
        if type(family) is Shift:
            legs.append(Bias(w, inverted))
        elif inverted and undone_as_one(run):
            legs.append(Undo(run))
        elif inverted:
            legs.append(Solve(family, w))
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


class Multiply(Leg):
    """y = W x for the product W of a run of matrices.

    A scale that runs first multiplies the columns of the product P of the others, W = P diag(s).
    """

    def __init__(self, run: Path) -> None:
        first = run[0].family if len(run) > 1 else None
        self.scale = first.scale(run[0].w) if isinstance(first, Scale) else None
        self.run = run
        self.others: Any = run if self.scale is None else run[1:]
        self.memos: list[Any] = []
        product: Any = None
        for factor in self.others:
            family: Any = factor.family
            w = factor.w
            product, memo = family.matrix(w) if product is None else family.times(w, product)
            self.memos.append(memo)
        self.inner = product
        self.product = product if self.scale is None else product * self.scale[None, :]

    def __call__(self, x: Array) -> Array:
        return maps.apply(MATRIX, self.product, x)

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        product_bar, x_bar = maps.apply_vjp(MATRIX, self.product, x, bar, wanted)
        return self.factors_vjp(product_bar), x_bar

    def factors_vjp(self, bar: Array | None) -> Bars:
        """Return the gradients of ``<bar, W>`` by the weights."""
        if bar is None:
            return [None] * len(self.run)
        before: Bars = []
        if self.scale is not None:
            first: Any = self.run[0].family
            s_bar = namespace(bar).sum(bar * self.inner, axis=0)
            before, bar = [first.scale_vjp(self.run[0].w, s_bar)], bar * self.scale[None, :]
        bars: Bars = [None] * len(self.others)
        for i in reversed(range(1, len(self.others))):
            family, w, _ = self.others[i]
            bars[i], bar = family.times_vjp(w, self.memos[i], bar)
        family, w, _ = self.others[0]
        bars[0] = family.matrix_vjp(w, self.memos[0], bar)
        return [*before, *bars]


class Merged(Leg):
    """y = K (W x) for a convolution K and a product W of matrices, which goes into the taps."""

    def __init__(self, before: Multiply, conv: Factor) -> None:
        self.before = before
        linear: Any = conv.family.linear  # type: ignore[attr-defined]
        self.free, self.kernel = linear.free, linear.kernel
        self.taps = linear.taps(conv.w)
        self.after = matmul(self.taps, before.product)

    def __call__(self, x: Array) -> Array:
        return maps.apply(self.free, self.after, x)

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        after_bar, x_bar = maps.apply_vjp(self.free, self.after, x, bar, wanted)
        if not wanted[0]:
            return [None] * (len(self.before.run) + 1), x_bar
        taps_bar, product_bar = maps.matmul_vjp(self.taps, self.before.product, after_bar, BOTH)
        return [*self.before.factors_vjp(product_bar), self.kernel(taps_bar)], x_bar


@dataclass(eq=False)
class Undo(Leg):
    """y = W^-1 x for a product W of matrices, given in the order in which they are undone.

    Cotangents are pulled back factor by factor, without losing digits that the solve keeps.
    """

    run: Path
    solver: Solver | None = None

    def __call__(self, x: Array) -> Array:
        self.solver = self.solver or undoing(self.run)
        return self.solver(x)

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        factors: list[Any] = [(factor.family, factor.w) for factor in self.run]
        solves = [PixelSteps(family.undoing(w)) for family, w in factors]
        points = [pixel_rows(x)]
        for solve in solves:
            points.append(solve.undo(points[-1]))
        rows, bars = pixel_rows(bar), []
        pairs = zip(factors, solves, points[1:], strict=True)
        for (family, w), solve, point in reversed(list(pairs)):
            rows = solve.transposed(rows)
            bars.append(_negative(family.gram(w, rows, point)) if wanted[0] else None)
        return bars[::-1], from_pixel_rows(rows, bar.shape)


def _negative(bar: Any) -> Any:
    if isinstance(bar, tuple):
        return tuple(map(_negative, bar))
    return None if bar is None else -bar


def undoing(run: Sequence[Factor]) -> Solver:
    """Return the solver of a run of matrices, given in the order in which they are undone."""
    return solver_of_steps(undoing_steps(run))


def undoing_steps(run: Sequence[Factor]) -> PixelSteps:
    """Return the solver that undoes them one by one."""
    steps = (step for f in run for step in f.family.undoing(f.w))  # type: ignore[attr-defined]
    return PixelSteps(tuple(steps))
