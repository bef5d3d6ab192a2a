"""Condition numbers of operators, from their values in host memory, in NumPy float64.

`invconv.trust` has the numbers of maps; this module brings an operator to the host, and says why
an operator has no finite number.

Called by `base.operator` (and `checks`, `stability`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Shape, readable, to_numpy
from invconv.operators.base.protocol import Protocol
from invconv.trust.condition import FAILURES, OVERFLOW, Condition, one_norm
from invconv.trust.norms import SolveOverflowError, norms

Result = TypeVar("Result")

_IMAGES = 9
_ROUNDING = math.sqrt(3 * 0.375 / math.log(2) / 12)  # +-0.37, of root mean square 0.21


def number(conv: Protocol, shape: Shape) -> Condition:
    """Return the condition of any operator, from its values in host memory."""

    def compute(host: Protocol) -> Condition:
        host._linear_maps(shape)  # raises where the operator is exactly singular
        found = host._condition(shape)
        if not math.isfinite(found.value):
            raise SolveOverflowError
        return found

    try:
        return _on_host(compute, conv)
    except SingularConvError as error:
        trouble = str(error)
    except (SolveOverflowError, np.linalg.LinAlgError):
        broken = [n for n, a in conv.parameters().items() if not np.isfinite(to_numpy(a)).all()]
        trouble = f"{', '.join(broken)} holds NaN or inf" if broken else OVERFLOW
    return Condition(math.inf, "any norm", trouble=trouble)


def bound(conv: Protocol, shape: Shape) -> float:
    """Return a cheap upper bound of the 2-norm condition number of any operator, or inf."""
    try:
        value = _on_host(lambda host: host._condition_bound(shape), conv)
    except FAILURES:
        return math.inf
    return math.inf if math.isnan(value) else value


def norm_values(conv: Protocol, shape: Shape) -> tuple[float, float]:
    """Return or estimate |K|_1 and |K^-1|_1, (inf, inf) where K is singular or one overflows."""
    try:
        gain, back = _on_host(lambda host: norms(*_maps(host, shape)), conv)
    except FAILURES:
        return math.inf, math.inf
    return gain.value, back.value


def typical_loss(conv: Protocol, shape: Shape) -> float:
    """Return what rounding K x does to the worst pixel of a typical x, in units of eps.

    The median, over a few images x of independent N(0, 1) numbers, of max |K^-1 (y r)|, where
    y = K x and the relative rounding errors r eps are independent and uniform. Their root mean
    square is 0.21 eps: rounding adds an error of 2^e eps/sqrt(12) to a number m 2^e, on the average
    over 1 <= m < 2 by Benford's law.
    """

    def compute(host: Protocol) -> float:
        apply, solve = host._linear_maps(shape)
        rng = np.random.default_rng(0)
        y = apply(rng.standard_normal((_IMAGES, host.channels, *shape)))
        error = np.abs(solve(y * rng.uniform(-_ROUNDING, _ROUNDING, y.shape)))
        return float(np.median(error.reshape(_IMAGES, -1).max(axis=1)))

    try:
        found = _on_host(compute, conv)
    except FAILURES:
        return math.inf
    return math.inf if math.isnan(found) else found


def _on_host(compute: Callable[[Protocol], Result], conv: Protocol) -> Result:
    with np.errstate(all="ignore"):
        return compute(conv.asarrays(np.empty(0)))


def in_one_norm(
    conv: Protocol, shape: Shape, first: tuple[int | None, ...] | None = None
) -> Condition:
    """Return the condition in the 1-norm of an operator of NumPy float64 arrays.

    The parameters are those of `invconv.trust.norms.norms`.
    """
    maps, transposed, sample = _maps(conv, shape)
    return one_norm(maps, transposed, sample, first)


def _maps(conv: Protocol, shape: Shape) -> Any:
    return (
        conv._linear_maps(shape),
        lambda: conv._transposed_maps(shape),
        (conv.channels, *shape),
    )


def remembered(conv: Protocol, shape: Shape) -> float:
    """Return the condition number that the operator remembers, computed the first time."""
    return conv._conditions.find("exact", shape, lambda: number(conv, shape).value)


def exceeds(conv: Protocol, shape: Shape, limit: float) -> bool:
    """Tell whether the condition number exceeds a limit, by a cheap bound where that is enough.

    The operator remembers both. False where its values cannot be looked at.
    """
    cheap = conv._conditions.get("bound", shape)
    if cheap is None:
        if not all(readable(a) for a in conv._arrays().values()):
            return False
        cheap = conv._conditions.find("bound", shape, lambda: bound(conv, shape))
    return cheap > limit and remembered(conv, shape) > limit
