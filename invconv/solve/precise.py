"""Inverses with more right digits than a solve in the dtype of the data leaves.

A solve in a precision eps has an error of up to condition x eps, even of a y that is exact, as a
random number to sample from is. Two ways get the digits back, at most down to the rounding of x:

    float64     x = K^-1 y with all arrays in float64, rounded at the end
    refinement  x <- x + K^-1 (y - K x), the difference in float64, the solve in the data's dtype

A step of refinement gains about -log10(condition x eps) digits, none where that is negative.
Neither way helps with a y that has been rounded: the condition number amplifies its last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from invconv.arrays.namespaces import Array, Shape, cast, library_name, namespace
from invconv.arrays.settings import choice
from invconv.operators.base.checks import exceeds
from invconv.operators.base.prepared import Factor, Map, Plan

if TYPE_CHECKING:
    from invconv.operators.base.operator import InvertibleConv

TOO_FEW = 1e-3  # condition x eps from which on "auto" takes float64: fewer than three digits


@dataclass(frozen=True, eq=False)
class Wide:
    """A solve in float64 of data in another dtype."""

    solve: Map

    def __call__(self, y: Array) -> Array:
        """Solve for x."""
        return cast(self.solve(cast(y, namespace(y).float64)), y.dtype)


@dataclass(frozen=True, eq=False)
class Refined:
    """A solve with ``steps`` of x <- x + K^-1 (y - K x).

    Attributes
    ----------
    solve, linear : callable
        y -> x, and the same without any bias.
    conv : InvertibleConv
        In float64.
    steps : int
    """

    solve: Map
    linear: Map
    conv: InvertibleConv
    steps: int

    def __call__(self, y: Array) -> Array:
        """Solve for x."""
        xp, x = namespace(y), self.solve(y)
        for _ in range(self.steps):
            rest = cast(y, xp.float64) - self.conv._forward(cast(x, xp.float64))
            x = x + self.linear(cast(rest, y.dtype))
        return x


def in_float64(conv: InvertibleConv) -> InvertibleConv:
    """Return an operator in float64, differentiable in its own arrays."""
    like = conv._reference()[1]
    xp = namespace(like)
    wide = conv._in_dtype(xp.float64)
    if wide._reference()[1].dtype != xp.float64:
        raise ValueError(
            f"precision: {library_name(like)} has no float64 here; for JAX, "
            'jax.config.update("jax_enable_x64", True) brings it'
        )
    return wide


def chosen(conv: InvertibleConv, shape: Shape, precision: str | None) -> bool:
    """Tell whether to solve in float64; "auto" does where too few digits are left without."""
    if precision is None:
        return False
    choice("precision", precision, ("float64", "auto"))
    like = conv._in_working_precision()._reference()[1]
    eps = float(namespace(like).finfo(like.dtype).eps)
    wider = like.dtype != namespace(like).float64
    return wider and (precision == "float64" or exceeds(conv, shape, TOO_FEW / eps))


def wrapped(factor: Factor, working: InvertibleConv, shape: Shape, refine: int) -> Factor:
    """Return a factor of ``working``, perhaps in float64, for data in its own dtype."""
    dtype = working._reference()[1].dtype
    if factor.log_det.dtype != dtype:
        plan = Plan({"precision": "float64"}, factor.runs)
        factor = Factor(Wide(factor.solve), cast(factor.log_det, dtype), plan)
    if refine == 0:
        return factor
    linear = working._linear_maps(shape)[1]
    solve = Refined(factor.solve, linear, in_float64(working), refine)
    return Factor(solve, factor.log_det, Plan({"refinement steps": refine}, factor.runs))
