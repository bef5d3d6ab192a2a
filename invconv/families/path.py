"""Lists of factors: how they run, are undone, are differentiated and are factored for a grid.

    y = A_n ... A_1 x,    log|det| = sum over i of log|det A_i|

A path lists the factors in the order in which they run. A factor may run inverted, so the inverse
of a path is a path: the factors in the opposite order, each of them turned.

A route is a path on one grid, cut into *legs*. A leg has one factor, or matrices that follow each
other: they are multiplied first, or undone one by one. A leg of matrices may join the next one.

    A_3 A_2 A_1 x = (A_3 A_2 A_1) x,    and K (W x) = (K W) x: W goes into the taps of K

A state is the inverse of a path, factored for one grid: factor once, solve often. It has a *solver*
for each leg that is undone, and one for all legs in between, which are applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    as_float64,
    cast,
    log_abs,
    namespace,
    per_channel,
    size,
    to_numpy,
    total,
)
from invconv.families.family import BOTH, Family, Shift, Wanted
from invconv.families.pointwise import MATRIX, PointwiseFamily, Scale
from invconv.kernels import maps
from invconv.kernels.matrices import PixelSteps, Product, solver_of_steps
from invconv.kernels.primitives import (
    Plan,
    channel_sums,
    from_pixel_rows,
    matmul,
    nan_where_singular,
    pixel_rows,
)


class Factor(NamedTuple):
    """A factor A(w) of an operator, or A(w)^-1.

    Attributes
    ----------
    family : Family
    w : array or tuple of arrays
        The weights.
    inverted : bool
        Whether A(w)^-1 runs in the forward map.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv.extend import Factor, Scale
    >>> Factor(Scale(), np.ones(3), inverted=True).inverted
    True
    """

    family: Family
    w: Any
    inverted: bool = False

    @property
    def is_shift(self) -> bool:
        """Whether the factor is a bias."""
        return type(self.family) is Shift


Path = Sequence[Factor]
FactorLike = tuple[Family, Any] | Factor  # the forms in which a class may give a factor
Pair = tuple[list[Array], list[Array]]
Bars = list[Any]  # the gradients by the weights of each factor; None stands for zero


def inverse(path: Path) -> list[Factor]:
    """Return the path that undoes a path."""
    return [Factor(family, w, not inverted) for family, w, inverted in reversed(path)]


def linear(path: Path) -> list[Factor]:
    """Return a path without its biases."""
    return [factor for factor in path if not factor.is_shift]


def transposed(path: Path) -> list[Factor]:
    """Return the path of the transposed matrix."""
    turned = ((*f.family.transposed(f.w), f.inverted) for f in reversed(linear(path)))
    return [Factor(family, w, inverted) for family, w, inverted in turned]


def log_det(path: Path, shape: Shape, *, saving: bool = False) -> tuple[Array, list[Any]]:
    """Return log|det| on a grid, a 0-d array, and intermediate results for `add_log_det_vjp`."""
    pivots: Pair = [], []  # of the factors that are applied, and of those that are undone
    others: Pair = [], []
    memos: list[Any] = []
    for family, w, inverted in path:
        memo = None
        if type(family) is not Shift:
            memo = family.pivots(w)
            if memo is not None:
                pivots[inverted].append(memo)
            else:
                term, memo = family.log_det(w, shape, saving)
                others[inverted].append(term)
        memos.append(memo)
    # the factors of an inverse come in the opposite order: so K K^-1 has exactly 0
    pivots[1].reverse()
    others[1].reverse()
    sums: list[Any] = []
    for numbers, terms in zip(pivots, others, strict=True):
        if numbers:  # of all factors at once
            every = numbers[0] if len(numbers) == 1 else namespace(numbers[0]).concat(numbers)
            terms.append(size(shape) * total(log_abs(every)))
        sums.append(sum(terms[1:], start=terms[0]) if terms else None)
    there, back = sums
    if there is None:
        return -back, memos
    return there if back is None else there - back, memos


def add_log_det_vjp(
    known: Sequence[Any], path: Path, shape: Shape, memos: Sequence[Any], bar: Array
) -> Bars:
    """Return bars plus the gradients of bar log|det|, which may reuse their arrays."""
    bars: Bars = []
    for (family, w, inverted), old, memo in zip(path, known, memos, strict=True):
        if type(family) is Shift:
            bars.append(old)
        else:
            own = -bar if inverted else bar
            bars.append(family.add_log_det_vjp(old, w, shape, memo, own))
    return bars


def solved(path: Path, back: bool) -> list[tuple[int, Factor]]:
    """Return the factors that a path solves, or if ``back`` those that its inverse solves.

    Each is given uninverted, with its place in the path.
    """
    return [
        (place, Factor(family, w))
        for place, (family, w, inverted) in enumerate(path)
        if inverted != back and type(family) is not Shift
    ]


def split_by_leg(path: Path) -> list[list[Factor]]:
    """Split a path into the factors of each leg: matrices of one direction, or one other factor."""
    split: list[list[Factor]] = []
    last: bool | None = None
    for factor in path:
        family, _, inverted = factor
        joins = isinstance(family, PointwiseFamily) and (family.stepwise or not inverted)
        kind = inverted if joins else None  # of the leg that it may join
        if kind is not None and kind == last:
            split[-1].append(factor)
        else:
            split.append([factor])
        last = kind
    separate: list[list[Factor]] = []
    for leg in split:
        scales = len(leg) > 1 and all(isinstance(factor.family, Scale) for factor in leg)
        separate += [[factor] for factor in leg] if scales else [leg]
    return separate


def multiplied(factors: Sequence[Factor]) -> bool:
    """Tell whether the factors of a leg become one matrix; a scale alone is quicker as it is."""
    family = factors[0].family
    return isinstance(family, PointwiseFamily) and (
        len(factors) > 1 or not isinstance(family, Scale)
    )


def undone_as_one(factors: Sequence[Factor]) -> bool:
    """Tell whether a leg is undone matrix by matrix; else the family of its one factor solves."""
    family = factors[0].family
    return isinstance(family, PointwiseFamily) and (len(factors) > 1 or family.needs_y)


Pulled = tuple[list[Any], Any]  # gradients by the weights of a leg's factors, and by its input


@dataclass(eq=False)
class Leg:
    """A part of a route, y = A x + b for one factor or several."""

    keeps_start = True  # whether `pull_back` needs x
    keeps_end = False  # whether it needs y

    def __call__(self, x: Array) -> Array:
        """Return y."""
        raise NotImplementedError

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        """Return the gradients of ``<bar, y>`` by the weights, and by x."""
        raise NotImplementedError


@dataclass(eq=False)
class Apply(Leg):
    """y = A(w) x, by the rules of the family, or of the linear one that it is lowered to."""

    family: Family
    w: Any

    def __call__(self, x: Array) -> Array:
        family, w = self.family, self.w
        if not family.lowers:
            family, w = family.lowered(w)
        return maps.apply(family, w, x)

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        bar, x_bar = maps.apply_vjp(*self.family.lowered(self.w), x, bar, wanted)
        return [None if bar is None else self.family.lowered_vjp(self.w, bar)], x_bar


@dataclass(eq=False)
class Bias(Leg):
    """y = x + b, or y = x - b."""

    b: Array
    inverted: bool
    keeps_start = False

    def __call__(self, x: Array) -> Array:
        b = per_channel(self.b, x)
        return x - b if self.inverted else x + b

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        if not wanted[0]:
            return [None], bar
        b_bar = channel_sums(bar)
        return [-b_bar if self.inverted else b_bar], bar


class Multiply(Leg):
    """y = W x for the product W of matrices.

    A scale that runs first multiplies the columns of the product P of the others, W = P diag(s).
    """

    def __init__(self, factors: Path) -> None:
        first = factors[0].family if len(factors) > 1 else None
        self.scale = first.scale(factors[0].w) if isinstance(first, Scale) else None
        self.factors = factors
        self.others: Any = factors if self.scale is None else factors[1:]
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
            return [None] * len(self.factors)
        before: Bars = []
        if self.scale is not None:
            first: Any = self.factors[0].family
            s_bar = namespace(bar).sum(bar * self.inner, axis=0)
            before, bar = [first.lowered_vjp(self.factors[0].w, s_bar)], bar * self.scale[None, :]
        bars: Bars = [None] * len(self.others)
        for i in reversed(range(1, len(self.others))):
            family, w, _ = self.others[i]
            bars[i], bar = family.times_vjp(w, self.memos[i], bar)
        family, w, _ = self.others[0]
        bars[0] = family.matrix_vjp(w, self.memos[0], bar)
        return [*before, *bars]


class Merged(Leg):
    """y = K (W x) for a convolution K and a product W of matrices, which goes into the taps."""

    def __init__(self, before: Any, conv: Factor) -> None:
        self.before = before
        family: Any = conv.family
        self.free, self.kernel = family.free, family.kernel
        self.taps = family.taps(conv.w)
        self.after = matmul(self.taps, before.product)

    def __call__(self, x: Array) -> Array:
        return maps.apply(self.free, self.after, x)

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        after_bar, x_bar = maps.apply_vjp(self.free, self.after, x, bar, wanted)
        if not wanted[0]:
            return [None] * (len(self.before.factors) + 1), x_bar
        taps_bar, product_bar = maps.matmul_vjp(self.taps, self.before.product, after_bar, BOTH)
        return [*self.before.factors_vjp(product_bar), self.kernel(taps_bar)], x_bar


@dataclass(eq=False)
class Undo(Leg):
    """y = A(w)^-1 x, or W^-1 x for matrices, given in the order in which they are undone.

    Factored when called; a leg that only pulls back costs nothing. Through matrices
    cotangents are pulled back factor by factor, without losing digits that the solve keeps.
    """

    factors: list[Factor]

    def __post_init__(self) -> None:
        self.keeps_end = not undone_as_one(self.factors)
        self.keeps_start = not self.keeps_end or self.factors[0].family.needs_y

    def __call__(self, x: Array) -> Array:
        return _solver(self.factors, tuple(x.shape[2:]))(x)

    def pull_back(self, x: Any, y: Any, bar: Array, wanted: Wanted) -> Pulled:
        if self.keeps_end:  # one factor, by its own rule
            family, w, _ = self.factors[0]
            w_bar, x_bar = family.solve_vjp(w, x, y, bar, wanted)
            return [w_bar], x_bar
        pairs: list[Any] = [(factor.family, factor.w) for factor in self.factors]
        solves = [family.undoing(w) for family, w in pairs]
        points = [pixel_rows(x)]
        for solve in solves:
            points.append(solve(points[-1]))
        rows, bars = pixel_rows(bar), []
        steps = zip(pairs, solves, points[1:], strict=True)
        for (family, w), solve, point in reversed(list(steps)):
            rows = solve.transposed(rows)
            bars.append(family.matrix_gram(w, -rows, point) if wanted[0] else None)
        return bars[::-1], from_pixel_rows(rows, bar.shape)


def undoing(factors: Sequence[Factor], by_factor: bool = False) -> Product | PixelSteps:
    """Return the solver of matrices, given in the order in which they are undone."""
    steps = PixelSteps(tuple(f.family.undoing(f.w) for f in factors))  # type: ignore[attr-defined]
    return steps if by_factor else solver_of_steps(steps)


class Route:
    """The legs of a path, on one grid.

    ``guard`` is log|det| of the factors that are solved, if it was not readable; the result is NaN
    where it is -inf. ``pixels`` is the number of pixels of all images: a matrix is multiplied into
    the taps of a convolution if they are fewer, or if the number of pixels is a symbol.
    """

    def __init__(self, path: Path, shape: Shape, guard: Any = None, *, pixels: int = 0) -> None:
        self.path, self.shape, self.guard = path, shape, guard
        self.legs: list[Leg] = []
        for factors in split_by_leg(path):
            family, w, inverted = factors[0]
            if type(family) is Shift:
                leg: Leg = Bias(w, inverted)
            elif inverted:
                leg = Undo(factors)
            elif isinstance(family, PointwiseFamily) and multiplied(factors):
                leg = Multiply(factors)
            elif family.leg is not None:
                leg = family.leg(family, w, shape)
            elif (
                self.legs
                and isinstance(self.legs[-1], Multiply)
                and (free := getattr(family, "free", None)) is not None
                and (not isinstance(pixels, int) or len(free.offsets) < pixels)
            ):
                leg = Merged(self.legs.pop(), factors[0])
            else:
                leg = Apply(family, w)
            self.legs.append(leg)

    def __call__(self, x: Array) -> Array:
        """Return the result for x (B, C, *spatial)."""
        for leg in self.legs:
            x = leg(x)
        return x if self.guard is None else nan_where_singular(x, self.guard)

    def saving(self, x: Array, wanted: bool = True) -> "tuple[Array, Any, Memo]":
        """Return the result, log|det| or None, and a memo for the derivative of both."""
        kept = []
        for leg in self.legs:
            y = leg(x)
            kept.append((x if leg.keeps_start else None, y if leg.keeps_end else None))
            x = y
        x = x if self.guard is None else nan_where_singular(x, self.guard)
        number, memos = None, None
        if wanted:
            number, memos = log_det(self.path, self.shape, saving=True)
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
    """Intermediate results of a route and of its log|det|, for the derivatives of both."""

    route: Route
    kept: Sequence[tuple[Any, Any]]
    memos: Any


@dataclass(frozen=True, eq=False)
class State:
    """An affine map y = K x + b, factored for one grid."""

    solvers: tuple[Any, ...]  # y -> K^-1 (y - b), one after the other: the last factor comes first
    log_det: Array  # 0-d: log|det K|
    # 0-d: log|det| of the factors that are solved, if it was not readable when K was factored: the
    # result is NaN where it is -inf
    guard: Array | None = None
    dtype: Any = None  # the dtype of K^-1, if data of another dtype are cast to it

    def solve(self, y: Array) -> Array:
        """Return x = K^-1 (y - b), shape (B, C, *spatial)."""
        x = y if self.dtype is None else as_float64(y)
        for solver in self.solvers:
            x = solver(x)
        if self.guard is not None:
            x = nan_where_singular(x, self.guard)
        return x if self.dtype is None else cast(x, y.dtype)

    def on_host(self, path: Path, shape: Shape) -> "State":
        """Return the state on NumPy arrays; ``path``, the path that solves, is on the host already.

        Solvers that have no copy on the host are factored again.
        """
        if isinstance(self.log_det, np.ndarray | np.generic):
            return self
        pairs = zip(split_by_solver(path), self.solvers, strict=True)
        there = (getattr(s, "as_numpy", lambda: None)() or _solver(f, shape) for f, s in pairs)
        return State(tuple(there), to_numpy(self.log_det))

    @property
    def plan(self) -> Plan:
        """How the solve runs: the method, and its choices."""
        steps = tuple(s.plan for s in reversed(self.solvers) if not isinstance(s, Bias))
        plan: Plan = steps[0] if len(steps) == 1 else Plan("steps, last first", steps=steps)
        return plan if self.dtype is None else replace(plan, precision="float64")


@dataclass(frozen=True, eq=False)
class Forward:
    """A solver that is a forward map: the factors of these families with these weights."""

    families: tuple[Family, ...]
    weights: tuple[Any, ...]
    plan: ClassVar[Plan] = Plan("forward")

    def __call__(self, y: Array) -> Array:
        """Return the forward map of y, shape (B, C, *spatial)."""
        path, shape = list(map(Factor, self.families, self.weights)), tuple(y.shape[2:])
        return Route(path, shape, pixels=y.shape[0] * size(shape))(y)


def solvers_of(path: Path, shape: Shape, *, by_factor: bool = False) -> tuple[Any, ...]:
    """Return the solvers of a path that solves, such as the inverse of an operator's path.

    Matrices are undone factor by factor if ``by_factor``, as where a library records derivatives.
    """
    return tuple(_solver(factors, shape, by_factor) for factors in split_by_solver(path))


def split_by_solver(path: Path) -> list[list[Factor]]:
    """Split a path into the factors of each solver: a leg to undo, or all legs up to the next."""
    split: list[list[Factor]] = []
    for leg in split_by_leg(path):
        if split and not (leg[0].inverted or split[-1][0].inverted):
            split[-1] += leg
        else:
            split.append(leg)
    return split


def _solver(factors: list[Factor], shape: Shape, by_factor: bool = False) -> Any:
    first = factors[0]
    if not first.inverted:
        return Forward(tuple(f.family for f in factors), tuple(f.w for f in factors))
    if type(first.family) is Shift:
        return Bias(first.w, True)
    if isinstance(first.family, PointwiseFamily) and undone_as_one(factors):
        return undoing(factors, by_factor)
    return first.family.solver(first.w, shape)
