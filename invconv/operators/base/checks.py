"""Warnings of inverses that are certainly wrong in their dtype."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable

import numpy as np

from invconv.arrays.array_ops import adapters
from invconv.arrays.errors import IllConditionedWarning
from invconv.arrays.namespaces import (
    Array,
    Shape,
    bits,
    cast,
    device,
    grid_text,
    is_half,
    namespace,
    readable,
    size,
    to_numpy,
)
from invconv.families import path as paths
from invconv.families.path import State
from invconv.operators.base.conditions import about_condition, broken
from invconv.operators.base.factors import Factored
from invconv.operators.base.judgement import blame, exceeds, remembered
from invconv.trust.condition import EPS, digits_left

_ROUNDING = 64.0  # eps: tolerated error of a recomputed input
TOLERATED = 1e-2  # tolerated error of an entry relative to the largest: two digits are left


def warn_of_loss(conv: Factored, shape: Shape, result: Array, state: State | None = None) -> None:
    """Warn if an inverse with this result is wrong; ``state`` is the factored operator, if any."""
    precision = _precision_of(result)
    if readable(result) and exceeds(conv, shape, precision, TOLERATED, state):
        message = describe_loss(conv, shape, precision, state)
        warnings.warn(message, IllConditionedWarning, stacklevel=callers_level())


def solved_in(conv: Factored) -> str:
    """Return the precision in which an operator is solved, "float32" or "float64"."""
    return _precision_of(conv._reference()[1])


def _precision_of(like: Array) -> str:
    return "float64" if bits(like.dtype, like) == 64 else "float32"


def callers_level() -> int:
    """Return the ``stacklevel`` with which a warning points to the line that called the library."""
    level, frame, ours = 1, sys._getframe(1), {"invconv", "dataclasses", *adapters()}
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    return level


def describe_loss(conv: Factored, shape: Shape, precision: str, state: State | None = None) -> str:
    """Return the warning's text: the lost digits, their cause, and a remedy."""
    name = f"the inverse of {type(conv).__name__} on a grid of {grid_text(shape)}"
    if trouble := broken(conv):
        return f"{name} has condition number inf: {trouble}"
    number, carried = about_condition(conv, shape, precision)
    judgement = remembered(conv, shape, precision)
    left, worst = judgement.digits(precision), digits_left(number, EPS[precision])
    advice = "bring the parameters closer to their initialisation"
    if hasattr(conv, "least_squares"):
        advice = f"use least_squares(y, damp), or {advice}"
    if precision == "float32" and number * EPS["float64"] <= TOLERATED:
        advice += ", or use float64"
    with np.errstate(all="ignore"):
        path = conv._in_working_precision()._path()
        log_det = paths.log_det(path, shape)[0] if state is None else state.log_det
        fine = np.isfinite(to_numpy(log_det))
    though = ", though K x - y and the log-determinant look fine" if fine else ""
    lost = blame(conv, shape, precision)
    most = f", most of them lost by {lost.name} ({lost.kind})" if lost and lost.name else ""
    return (
        f"{name} is off by {judgement.error:.1e} of its largest entry, "
        f"{judgement.leg} {judgement.rests_on}: "
        f"{left:.1f} digits are left in {precision}{most}, {min(left, worst):.1f} at worst (it has "
        f"condition number {'about ' * carried}{number:.3g}){though}; {advice} "
        f"(invconv.diagnose says where it comes from; prepare(..., check=False) does not look)"
    )


def relative_error(x: Array, again: Array, z: Array) -> tuple[Array, Array]:
    """Return the errors of images x that were recomputed from an output z, and whether all is well.

    An error is |again - x| / |x|, in the 2-norm or in the largest entry: the larger of both. An
    input far smaller than its output may have an error of the output's rounding. An input that is
    not finite counts as right: its gradient is NaN anyway.
    """
    xp = namespace(x)
    eps = xp.finfo(x.dtype).eps
    if is_half(x.dtype, x):
        x, again, z = (cast(a, xp.float32) for a in (x, again, z))

    def over(reduce: Callable[..., Array], a: Array) -> Array:
        return reduce(a, axis=tuple(range(1, a.ndim)))

    off = again - x
    most, largest, end = (over(xp.max, xp.abs(a)) for a in (off, x, z))
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))  # so that no square overflows
    unit = xp.reshape(unit, (-1, *(1,) * (x.ndim - 1)))
    norm, size = (xp.sqrt(over(xp.sum, (a / unit) ** 2)) for a in (off, x))
    error = xp.maximum(most / largest, norm / size)
    nothing = xp.isfinite(end) & (largest <= eps**2 * end)
    right = (error <= max(TOLERATED, _ROUNDING * eps)) | (nothing & (most <= _ROUNDING * eps * end))
    return error, right | ~xp.isfinite(largest)


def noise_like(x: Array) -> Array:
    """Return noise of variance 1, (1, C, *spatial), for images (B, C, *spatial); always the same.

    The computation can be traced, and uses no random generator.
    """
    xp = namespace(x)
    count = size(x.shape[1:])
    real = xp.float32 if is_half(x.dtype, x) else x.dtype
    numbers = 43758.5453 * xp.sin(xp.arange(1, count + 1, dtype=real, device=device(x)))
    uniform = numbers - xp.floor(numbers)
    return cast(xp.reshape(math.sqrt(12) * (uniform - 0.5), (1, *x.shape[1:])), x.dtype)


def require_invertible(name: str, conv: Factored, shape: Shape) -> None:
    """Raise ValueError if an inverse in the operator's precision cannot be right."""
    precision = solved_in(conv)
    if exceeds(conv, shape, precision, TOLERATED):
        loss = describe_loss(conv, shape, precision)
        raise ValueError(f"{name}: expected an inverse that can be trusted, but {loss}")
