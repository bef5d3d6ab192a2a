"""The legs of a route for a run of matrices: one product, or undone factor by factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from invconv.arrays.namespaces import Array, namespace
from invconv.families.family import BOTH, Leg, Pulled, Wanted
from invconv.families.path import Bars, Factor, Path
from invconv.families.pointwise import MATRIX, Scale
from invconv.kernels import maps
from invconv.kernels.matrices import PixelSteps, solver_of_steps
from invconv.kernels.primitives import Solver, from_pixel_rows, matmul, pixel_rows


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
        """Return the gradients of <bar, W> by the weights."""
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
    solver: Solver | None

    def __call__(self, x: Array) -> Array:
        return (self.solver or undoing(self.run))(x)

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
    steps = (step for f in run for step in f.family.undoing(f.w))  # type: ignore[attr-defined]
    return solver_of_steps(PixelSteps(tuple(steps)))
