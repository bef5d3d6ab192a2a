"""Lists of factors: an operator, its inverse, its transpose, and its log-determinant.

    y = A_n ... A_1 x,    log|det| = sum over i of log|det A_i|

A path lists the factors in the order in which they run. A factor may run inverted, so the inverse
of a path is a path: the factors in the opposite order, each of them turned.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from invconv.arrays.namespaces import Array, Shape, log_abs, namespace, size, total
from invconv.families.family import Family, Shift


class Factor(NamedTuple):
    """A factor A(w), or A(w)^-1."""

    family: Family
    w: Any  # the weights: an array, or a tuple of arrays
    inverted: bool = False  # whether A(w)^-1 runs

    @property
    def is_shift(self) -> bool:
        """Whether the factor is a bias."""
        return type(self.family) is Shift


Path = Sequence[Factor]
FactorLike = tuple[Family, Any] | Factor  # what a class gives for a factor
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
    back = _sum(pivots[1][::-1], others[1][::-1], shape)
    there = _sum(pivots[0], others[0], shape)
    if there is None:
        return -back, memos
    return there if back is None else there - back, memos


def _sum(pivots: list[Array], terms: list[Array], shape: Shape) -> Any:
    """Return the sum of the terms, the pivots of all factors at once, or None of none."""
    if pivots:
        every = pivots[0] if len(pivots) == 1 else namespace(pivots[0]).concat(pivots)
        terms = [*terms, size(shape) * total(log_abs(every))]
    return sum(terms[1:], start=terms[0]) if terms else None


def add_log_det_vjp(
    known: Sequence[Any], path: Path, shape: Shape, memos: Sequence[Any], bar: Array
) -> Bars:
    """Return bars plus the gradients of bar log|det|, perhaps in their memory."""
    bars: Bars = []
    for (family, w, inverted), old, memo in zip(path, known, memos, strict=True):
        if type(family) is Shift:
            bars.append(old)
        else:
            own = -bar if inverted else bar
            bars.append(family.add_log_det_vjp(old, w, shape, memo, own))
    return bars


def solved(path: Path, back: bool) -> list[tuple[int, Factor]]:
    """Return the factors that a path solves, or that its inverse does if ``back``, as they are.

    Each comes with its place in the path.
    """
    return [
        (place, Factor(family, w))
        for place, (family, w, inverted) in enumerate(path)
        if inverted != back and type(family) is not Shift
    ]
